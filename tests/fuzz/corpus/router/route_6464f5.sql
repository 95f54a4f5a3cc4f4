SELECT * FROM v /* pgshunt: replica, region=eu max_lag=200ms */
