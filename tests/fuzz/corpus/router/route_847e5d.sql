BEGIN /* pgshunt: max_lag=5 */
