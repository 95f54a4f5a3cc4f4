# Ruby's pg: parameters, prepared statements, pipeline mode, COPY, single-row mode, cancel, notifications.
require 'pg'

TABLE = ENV.fetch('PGSHUNT_TABLE')
CLIENTS = 50
ROUNDS = 20
TEXT = "Grüße, 日本語 🐘 'quoted' \"double\" back\\slash".freeze

def connect(database: ENV.fetch('PGSHUNT_DATABASE'), **more)
  connection = PG.connect(host: ENV.fetch('PGSHUNT_HOST'), port: ENV.fetch('PGSHUNT_PORT'), dbname: database,
                          user: ENV.fetch('PGSHUNT_USER'), password: ENV.fetch('PGSHUNT_PASSWORD'),
                          application_name: 'matrix', connect_timeout: 20, **more)
  return connection unless block_given?

  begin
    yield connection
  ensure
    connection.close
  end
end

def check(found, wanted)
  raise "found #{found.inspect} instead of #{wanted.inspect}" unless found == wanted
end

def value(connection, sql, *values)
  connection.exec_params(sql, values).getvalue(0, 0)
end

def fails(kind)
  yield
rescue kind => error
  error
else
  raise "no #{kind}"
end

CASES = {
  'connect' => lambda {
    connect { |c| check(value(c, 'SHOW application_name'), 'matrix') }
    error = fails(PG::ConnectionBad) { connect(password: 'wrong') }
    check(error.message.include?('password authentication failed'), true)
  },

  'types' => lambda {
    connect do |c|
      { 'int' => '2147483647', 'bigint' => '-9007199254740993', 'numeric' => '12345678901234567890.123456789',
        'text' => TEXT, 'bool' => 't', 'uuid' => '123e4567-e89b-12d3-a456-426614174000',
        'jsonb' => '{"a": [1, 2.5, null, "ä"]}', 'int[]' => '{1,NULL,3}', 'varchar' => nil }.each do |type, given|
        check(value(c, "SELECT $1::#{type}", given), given)
      end
      check(value(c, "SELECT $1::timestamptz = '2026-02-03 04:05:06.789012+00'", '2026-02-03 04:05:06.789012Z'), 't')
      bytes = "\x00\x01\xff\\'".b
      check(c.exec_params('SELECT $1::bytea', [{ value: bytes, format: 1 }], 1).getvalue(0, 0), bytes)
      # With type maps values are Ruby's own.
      c.type_map_for_results = PG::BasicTypeMapForResults.new(c)
      c.type_map_for_queries = PG::BasicTypeMapForQueries.new(c)
      row = c.exec_params('SELECT $1::int, $2::bool, $3::float8, $4::int[]', [7, true, 0.1, [1, nil, 3]]).values[0]
      check(row, [7, true, 0.1, [1, nil, 3]])
    end
  },

  'prepared' => lambda {
    connect do |a|
      connect do |b|
        a.prepare('mine', "SELECT 'a' || $1::int")
        b.prepare('mine', "SELECT 'b' || $1::int")
        20.times do |turn|
          [a, b].each { |c| c.exec('BEGIN') }
          check(a.exec_prepared('mine', [turn]).getvalue(0, 0), "a#{turn}")
          check(b.exec_prepared('mine', [turn]).getvalue(0, 0), "b#{turn}")
          (turn.odd? ? [a, b] : [b, a]).each { |c| c.exec('COMMIT') }
        end
        check(a.describe_prepared('mine').nparams, 1)
        a.exec('DEALLOCATE mine')
        fails(PG::InvalidSqlStatementName) { a.exec_prepared('mine', [1]) }
      end
    end
  },

  'transactions' => lambda {
    connect do |c|
      c.transaction do
        c.exec("INSERT INTO #{TABLE} VALUES (1, 1, 'kept')")
        c.exec('SAVEPOINT s')
        fails(PG::UniqueViolation) { c.exec("INSERT INTO #{TABLE} VALUES (1, 1, 'twice')") }
        fails(PG::InFailedSqlTransaction) { c.exec('SELECT 1') }
        c.exec('ROLLBACK TO s')
      end
      fails(ZeroDivisionError) do
        c.transaction do
          c.exec("UPDATE #{TABLE} SET body = 'gone'")
          raise ZeroDivisionError
        end
      end
      check(value(c, "SELECT body FROM #{TABLE}"), 'kept')
      check(c.exec("DELETE FROM #{TABLE}").cmd_tuples, 1)
    end
  },

  'errors' => lambda {
    connect do |c|
      error = fails(PG::UndefinedTable) { c.exec('SELECT * FROM missing_table') }
      check(error.result.error_field(PG::PG_DIAG_SQLSTATE), '42P01')
      check(error.result.error_field(PG::PG_DIAG_STATEMENT_POSITION), '15')
      fails(PG::DivisionByZero) { value(c, 'SELECT 1 / $1::int', 0) }
      fails(PG::CheckViolation) { c.exec("INSERT INTO #{TABLE} VALUES (1, 1, 'refused')") }
      check(value(c, 'SELECT 1'), '1')
    end
  },

  'batch' => lambda {
    connect do |c|
      c.enter_pipeline_mode
      100.times { |n| c.send_query_params('SELECT $1::int', [n]) }
      c.pipeline_sync
      100.times do |n|
        check(c.get_result.getvalue(0, 0), n.to_s)
        check(c.get_result, nil)
      end
      check(c.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
      c.send_query_params('SELECT 1 / $1::int', [0])
      c.send_query_params('SELECT 1', [])
      c.pipeline_sync
      check(c.get_result.result_status, PG::PGRES_FATAL_ERROR)
      c.get_result
      check(c.get_result.result_status, PG::PGRES_PIPELINE_ABORTED)
      c.get_result
      check(c.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
      c.exit_pipeline_mode
      check(value(c, 'SELECT 1'), '1')
    end
  },

  'copy' => lambda {
    connect do |c|
      c.copy_data("COPY #{TABLE} FROM STDIN", PG::TextEncoder::CopyRow.new) do
        3000.times { |n| c.put_copy_data([n.to_s, '1', "line #{n}"]) }
      end
      lines = 0
      c.copy_data("COPY (SELECT id, body FROM #{TABLE} ORDER BY id) TO STDOUT", PG::TextDecoder::CopyRow.new) do
        while (row = c.get_copy_data)
          check(row, [lines.to_s, "line #{lines}"])
          lines += 1
        end
      end
      check(lines, 3000)
      fails(ZeroDivisionError) { c.copy_data("COPY #{TABLE} FROM STDIN") { raise ZeroDivisionError } }
      check(c.exec("DELETE FROM #{TABLE}").cmd_tuples, 3000)
    end
  },

  'cursor' => lambda {
    connect do |c|
      c.send_query('SELECT n FROM generate_series(1, 1000) AS n')
      c.set_single_row_mode
      check(c.get_result.stream_each.map { |row| row['n'].to_i }, (1..1000).to_a)
      c.get_result
      c.transaction do
        c.exec('DECLARE reader CURSOR FOR SELECT n FROM generate_series(1, 10) AS n')
        check(c.exec('FETCH 3 FROM reader').column_values(0), %w[1 2 3])
      end
    end
  },

  'cancel' => lambda {
    connect do |c|
      c.send_query('SELECT pg_sleep(30)')
      sleep(0.3)
      check(c.cancel, nil)
      fails(PG::QueryCanceled) { c.get_last_result }
      check(value(c, 'SELECT 1'), '1')
    end
  },

  'listen' => lambda {
    connect do |listener|
      listener.exec("LISTEN #{TABLE}")
      connect { |c| c.exec("NOTIFY #{TABLE}, 'hello'") }
      heard = nil
      listener.wait_for_notify(20) { |channel, _pid, payload| heard = [channel, payload] }
      check(heard, [TABLE, 'hello'])
    end
  },

  'many' => lambda {
    threads = Array.new(CLIENTS) do |who|
      Thread.new do
        connect do |c|
          c.prepare('put', "INSERT INTO #{TABLE} VALUES ($1, $2, $3)")
          ROUNDS.times do |turn|
            id = who * 1000 + turn
            c.transaction do
              c.exec_prepared('put', [id, who, "#{who} #{turn}"])
              check(value(c, "SELECT body FROM #{TABLE} WHERE id = $1", id), "#{who} #{turn}")
            end
          end
        end
      end
    end
    threads.each { |thread| thread.report_on_exception = false }
    threads.each(&:join)
  },

  'sharded' => lambda {
    connect(database: ENV.fetch('PGSHUNT_SHARDED')) do |c|
      c.prepare('by id', 'SELECT name FROM users WHERE id = $1')
      (1..20).each { |id| check(c.exec_prepared('by id', [id]).getvalue(0, 0), format('user %04d', id)) }
      check(c.exec_params('SELECT id FROM users ORDER BY id DESC LIMIT $1', [2]).column_values(0), %w[200 199])
      check(c.exec_params("INSERT INTO users (id, name) VALUES ($1, 'a'), ($2, 'b')", [501, 502]).cmd_tuples, 2)
      check(c.exec_params('DELETE FROM users WHERE id > $1', [500]).cmd_tuples, 2)
    end
  }
}.freeze

CASES.each do |name, run|
  run.call
  puts "ok #{name}"
rescue StandardError => e
  puts "failed #{name}: #{e.full_message(highlight: false)}"
end
