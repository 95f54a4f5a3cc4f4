// JDBC (pgjdbc): server-side prepare from the fifth execution on, batches, fetch size, COPY, cancel, notifications.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

public class Driver {
    static final String TABLE = System.getenv("PGSHUNT_TABLE");
    static final int CLIENTS = 50;
    static final int ROUNDS = 20;

    interface Case {
        void run() throws Exception;
    }

    static Connection connect(String database, String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGSHUNT_USER"));
        properties.setProperty("password", System.getenv("PGSHUNT_PASSWORD"));
        properties.setProperty("loginTimeout", "20");
        for (int i = 0; i < options.length; i += 2) {
            properties.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGSHUNT_HOST") + ":"
                + System.getenv("PGSHUNT_PORT") + "/" + System.getenv(database), properties);
    }

    static Connection connect() throws SQLException {
        return connect("PGSHUNT_DATABASE");
    }

    static void check(Object found, Object wanted) {
        if (found == null ? wanted != null : !found.equals(wanted)) {
            throw new AssertionError("found " + found + " instead of " + wanted);
        }
    }

    static Object value(Connection connection, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                check(rows.next(), true);
                return rows.getObject(1);
            }
        }
    }

    static int update(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return statement.executeUpdate(sql);
        }
    }

    static SQLException fails(String sqlState, Case function) throws Exception {
        try {
            function.run();
        } catch (SQLException error) {
            check(error.getSQLState(), sqlState);
            return error;
        }
        throw new AssertionError("no error " + sqlState);
    }

    // ---- cases ----

    static void caseConnect() throws Exception {
        try (Connection c = connect("PGSHUNT_DATABASE", "ApplicationName", "matrix", "options",
                "-c statement_timeout=4321")) {
            check(value(c, "SELECT current_setting('application_name')"), "matrix");
            check(value(c, "SHOW statement_timeout"), "4321ms");
            check(c.getMetaData().getDatabaseMajorVersion() >= 13, true);
            check(c.isValid(10), true);
            try (ResultSet columns = c.getMetaData().getColumns(null, null, TABLE, null)) {
                check(columns.next(), true);
                check(columns.getString("COLUMN_NAME"), "id");
            }
        }
        fails("28P01", () -> connect("PGSHUNT_DATABASE", "password", "wrong"));
    }

    static void caseTypes() throws Exception {
        for (String mode : List.of("extended", "simple", "extendedForPrepared", "extendedCacheEverything")) {
            boolean simple = mode.equals("simple"); // there the driver itself cannot send what it has in binary only
            try (Connection c = connect("PGSHUNT_DATABASE", "preferQueryMode", mode, "binaryTransfer",
                    simple ? "false" : "true", "prepareThreshold", "2")) {
                for (int turn = 0; turn < 4; turn++) {
                    types(c);
                    if (!simple) {
                        byte[] bytes = {0, 1, -1, '\\', '\''};
                        check(Arrays.equals((byte[]) value(c, "SELECT ?::bytea", bytes), bytes), true);
                    }
                }
            }
        }
    }

    static void types(Connection c) throws SQLException {
        check(value(c, "SELECT ?::int", Integer.MAX_VALUE), Integer.MAX_VALUE);
        check(value(c, "SELECT ?::bigint", -9007199254740993L), -9007199254740993L);
        BigDecimal number = new BigDecimal("12345678901234567890.123456789");
        check(value(c, "SELECT ?::numeric", number), number);
        String text = "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash";
        check(value(c, "SELECT ?::text", text), text);
        check(value(c, "SELECT ?::bool", true), true);
        UUID uuid = UUID.fromString("123e4567-e89b-12d3-a456-426614174000");
        check(value(c, "SELECT ?::uuid", uuid), uuid);
        OffsetDateTime time = OffsetDateTime.parse("2026-02-03T04:05:06.789012Z");
        try (PreparedStatement statement = c.prepareStatement("SELECT ?::timestamptz, ?::jsonb, ?::int[], ?::text")) {
            statement.setObject(1, time);
            statement.setString(2, "{\"a\": [1, 2.5, null, \"ä\"]}");
            statement.setArray(3, c.createArrayOf("int4", new Integer[] {1, null, 3}));
            statement.setNull(4, Types.VARCHAR);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                check(rows.getObject(1, OffsetDateTime.class), time);
                check(rows.getString(2), "{\"a\": [1, 2.5, null, \"ä\"]}");
                Array array = rows.getArray(3);
                check(Arrays.asList((Integer[]) array.getArray()), Arrays.asList(1, null, 3));
                check(rows.getString(4), null);
            }
        }
    }

    static void casePrepared() throws Exception {
        try (Connection a = connect(); Connection b = connect()) {
            a.setAutoCommit(false);
            b.setAutoCommit(false);
            try (PreparedStatement inA = a.prepareStatement("SELECT ?::int * 2");
                    PreparedStatement inB = b.prepareStatement("SELECT 'b' || ?::int")) {
                for (int turn = 0; turn < 20; turn++) {
                    inA.setInt(1, turn);
                    inB.setInt(1, turn);
                    try (ResultSet fromA = inA.executeQuery(); ResultSet fromB = inB.executeQuery()) {
                        fromA.next();
                        fromB.next();
                        check(fromA.getInt(1), turn * 2);
                        check(fromB.getString(1), "b" + turn);
                    }
                    (turn % 2 == 0 ? a : b).commit();
                    (turn % 2 == 0 ? b : a).commit();
                }
                check(inA.unwrap(org.postgresql.PGStatement.class).isUseServerPrepare(), true);
            }
        }
        // More statements than the driver keeps: it closes the oldest on the server.
        try (Connection c = connect("PGSHUNT_DATABASE", "prepareThreshold", "1", "preparedStatementCacheQueries", "3")) {
            for (int turn = 0; turn < 30; turn++) {
                check(value(c, "SELECT " + turn % 7 + " + ?::int", turn), turn % 7 + turn);
            }
        }
    }

    static void caseTransactions() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            update(c, "INSERT INTO " + TABLE + " VALUES (1, 1, 'kept')");
            Savepoint savepoint = c.setSavepoint("s");
            fails("23505", () -> update(c, "INSERT INTO " + TABLE + " VALUES (1, 1, 'twice')"));
            fails("25P02", () -> update(c, "SELECT 1"));
            c.rollback(savepoint);
            c.commit();
            update(c, "UPDATE " + TABLE + " SET body = 'gone'");
            c.rollback();
            check(value(c, "SELECT body FROM " + TABLE + " WHERE id = ?", 1), "kept");
            update(c, "DELETE FROM " + TABLE);
            c.commit();
            c.setReadOnly(true);
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            fails("25006", () -> update(c, "DELETE FROM " + TABLE));
            c.rollback();
            check(value(c, "SHOW transaction_isolation"), "serializable");
        }
        try (Connection c = connect("PGSHUNT_DATABASE", "autosave", "always")) {
            c.setAutoCommit(false);
            for (int turn = 0; turn < 7; turn++) {
                fails("22012", () -> value(c, "SELECT 1 / ?::int", 0));
                check(value(c, "SELECT ?::int", 1), 1);
            }
            c.commit();
        }
    }

    static void caseErrors() throws Exception {
        try (Connection c = connect()) {
            PSQLException error = (PSQLException) fails("42P01", () -> value(c, "SELECT * FROM missing_table"));
            check(error.getServerErrorMessage().getPosition(), 15);
            fails("22012", () -> value(c, "SELECT 1 / ?::int", 0));
            error = (PSQLException) fails("23514", () -> update(c, "INSERT INTO " + TABLE + " VALUES (1, 1, 'refused')"));
            check(error.getServerErrorMessage().getConstraint(), TABLE + "_body_check");
            check(value(c, "SELECT 1"), 1);
            try (Statement statement = c.createStatement()) {
                statement.execute("DO $$BEGIN RAISE NOTICE 'noticed'; END$$");
                check(statement.getWarnings().getMessage(), "noticed");
            }
        }
    }

    static void caseBatch() throws Exception {
        for (String rewrite : List.of("false", "true")) {
            try (Connection c = connect("PGSHUNT_DATABASE", "reWriteBatchedInserts", rewrite)) {
                for (boolean autoCommit : new boolean[] {true, false}) {
                    c.setAutoCommit(autoCommit);
                    batch(c);
                }
            }
        }
    }

    static void batch(Connection c) throws Exception {
        String insert = "INSERT INTO " + TABLE + " (id, who, body) VALUES (?, ?, ?)";
        try (PreparedStatement statement = c.prepareStatement(insert)) {
            for (int n = 0; n < 1000; n++) {
                addRow(statement, n, "batch " + n);
            }
            check(statement.executeBatch().length, 1000);
            if (!c.getAutoCommit()) {
                c.commit();
            }
            addRow(statement, 2000, "good");
            addRow(statement, 2001, "refused");
            addRow(statement, 2002, "good");
            fails("23514", statement::executeBatch);
            if (!c.getAutoCommit()) {
                c.rollback();
            }
        }
        check(value(c, "SELECT count(*) FROM " + TABLE), 1000L);
        check(update(c, "DELETE FROM " + TABLE), 1000);
        try (Statement statement = c.createStatement()) {
            statement.addBatch("INSERT INTO " + TABLE + " VALUES (1, 1, 'x')");
            statement.addBatch("UPDATE " + TABLE + " SET body = 'y'");
            statement.addBatch("DELETE FROM " + TABLE);
            check(Arrays.toString(statement.executeBatch()), "[1, 1, 1]");
            check(statement.execute("SELECT 1; SELECT 2"), true);
            check(statement.getMoreResults(), true);
        }
        if (!c.getAutoCommit()) {
            c.commit();
        }
    }

    static void addRow(PreparedStatement statement, long id, String body) throws SQLException {
        statement.setLong(1, id);
        statement.setInt(2, 1);
        statement.setString(3, body);
        statement.addBatch();
    }

    static void caseCopy() throws Exception {
        try (Connection c = connect()) {
            CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder lines = new StringBuilder();
            for (int n = 0; n < 3000; n++) {
                lines.append(n).append("\t1\tline ").append(n).append('\n');
            }
            check(copy.copyIn("COPY " + TABLE + " FROM STDIN", new StringReader(lines.toString())), 3000L);
            StringWriter out = new StringWriter();
            check(copy.copyOut("COPY (SELECT * FROM " + TABLE + " ORDER BY id) TO STDOUT", out), 3000L);
            check(out.toString(), lines.toString());
            fails("22P02", () -> copy.copyIn("COPY " + TABLE + " FROM STDIN", new StringReader("x\t1\tno\n")));
            check(update(c, "DELETE FROM " + TABLE), 3000);
        }
    }

    static void caseCursor() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            try (PreparedStatement statement = c.prepareStatement("SELECT n FROM generate_series(1, ?) AS n")) {
                for (int turn = 0; turn < 7; turn++) {
                    statement.setFetchSize(30);
                    statement.setInt(1, 1000);
                    try (ResultSet rows = statement.executeQuery()) {
                        for (int n = 1; n <= 1000; n++) {
                            check(rows.next(), true);
                            check(rows.getInt(1), n);
                            if (n == 100) {
                                check(value(c, "SELECT 'between'"), "between");
                            }
                        }
                        check(rows.next(), false);
                    }
                }
            }
            c.commit();
            try (Statement statement = c.createStatement()) {
                statement.setMaxRows(3);
                try (ResultSet rows = statement.executeQuery("SELECT n FROM generate_series(1, 10) AS n")) {
                    int count = 0;
                    while (rows.next()) {
                        count++;
                    }
                    check(count, 3);
                }
            }
        }
    }

    static void caseCancel() throws Exception {
        try (Connection c = connect(); Statement statement = c.createStatement()) {
            Thread thread = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    statement.cancel();
                } catch (InterruptedException | SQLException error) {
                    error.printStackTrace();
                }
            });
            thread.start();
            fails("57014", () -> statement.execute("SELECT pg_sleep(30)"));
            thread.join();
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.execute("SELECT pg_sleep(30)"));
            check(value(c, "SELECT 1"), 1);
        }
    }

    static void caseListen() throws Exception {
        try (Connection listener = connect(); Connection c = connect()) {
            update(listener, "LISTEN " + TABLE);
            update(c, "NOTIFY " + TABLE + ", 'hello'");
            var heard = listener.unwrap(PGConnection.class).getNotifications(20000);
            check(heard.length, 1);
            check(heard[0].getParameter(), "hello");
        }
    }

    static void caseMany() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(CLIENTS);
        List<Future<Boolean>> all = new ArrayList<>();
        for (int who = 0; who < CLIENTS; who++) {
            int number = who;
            Callable<Boolean> task = () -> work(number);
            all.add(pool.submit(task));
        }
        for (Future<Boolean> one : all) {
            one.get(100, TimeUnit.SECONDS);
        }
        pool.shutdown();
    }

    static Boolean work(int who) throws SQLException {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            try (PreparedStatement insert = c.prepareStatement("INSERT INTO " + TABLE + " VALUES (?, ?, ?)")) {
                for (int turn = 0; turn < ROUNDS; turn++) {
                    long id = who * 1000L + turn;
                    insert.setLong(1, id);
                    insert.setInt(2, who);
                    insert.setString(3, who + " " + turn);
                    insert.executeUpdate();
                    check(value(c, "SELECT body FROM " + TABLE + " WHERE id = ?", id), who + " " + turn);
                    c.commit();
                }
            }
            check(value(c, "SELECT count(*) FROM " + TABLE + " WHERE who = ?", who), (long) ROUNDS);
            c.commit();
        }
        return true;
    }

    static void caseSharded() throws Exception {
        try (Connection c = connect("PGSHUNT_SHARDED")) {
            for (int number = 1; number <= 20; number++) {
                check(value(c, "SELECT name FROM users WHERE id = ?", number), String.format("user %04d", number));
                check(value(c, "SELECT name FROM users WHERE id = ?", (long) number), String.format("user %04d", number));
                check(value(c, "SELECT id FROM users ORDER BY id DESC LIMIT ?", 1), 200L);
            }
            c.setAutoCommit(false);
            try (PreparedStatement statement = c.prepareStatement("INSERT INTO users (id, name) VALUES (?, 'batch')")) {
                for (long n = 501; n <= 520; n++) {
                    statement.setLong(1, n);
                    statement.addBatch();
                }
                check(statement.executeBatch().length, 20);
            }
            c.commit();
            check(update(c, "DELETE FROM users WHERE id > 500"), 20);
            c.commit();
        }
    }

    static void run(String name, Case function) {
        try {
            function.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            System.out.println("failed " + name + ": " + error);
            error.printStackTrace(System.out);
        }
    }

    public static void main(String[] arguments) {
        run("connect", Driver::caseConnect);
        run("types", Driver::caseTypes);
        run("prepared", Driver::casePrepared);
        run("transactions", Driver::caseTransactions);
        run("errors", Driver::caseErrors);
        run("batch", Driver::caseBatch);
        run("copy", Driver::caseCopy);
        run("cursor", Driver::caseCursor);
        run("cancel", Driver::caseCancel);
        run("listen", Driver::caseListen);
        run("many", Driver::caseMany);
        run("sharded", Driver::caseSharded);
    }
}
