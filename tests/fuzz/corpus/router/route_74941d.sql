SELECT 1 /* pgshunt: primary replica */
