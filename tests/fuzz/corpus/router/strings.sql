SELECT E'a\'b' 'c', U&'\0041', $a$ $$ $a$, "q""r", N'x' -- c
'd'