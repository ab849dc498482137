-- Replays prepared bodies over wrk: POST, one body a line of the file, round robin, DEPTH requests a write.
-- Every HTTP subject is driven by this script, so that the generator costs the same for all of them.
-- Arguments after `--`: the file of bodies, DEPTH, the API key, the file for the result.
local writes, position = {}, 0

-- wrk calls `done` in another Lua state than `init`, so the path of the result travels through the thread.
function setup(thread)
   threads = threads or {}
   threads[#threads + 1] = thread
end

function init(args)
   local depth = tonumber(args[2])
   wrk.method = "POST"
   wrk.headers["Authorization"] = "Bearer " .. args[3]
   wrk.headers["Content-Type"] = "application/json"
   result_file = args[4]
   local batch = {}
   for body in io.lines(args[1]) do
      wrk.body = body
      batch[#batch + 1] = wrk.format()
      if #batch == depth then
         writes[#writes + 1] = table.concat(batch)
         batch = {}
      end
   end
end

function request()
   position = position % #writes + 1
   return writes[position]
end

function done(summary, latency, requests)
   local errors = summary.errors
   local file = assert(io.open(threads[1]:get("result_file"), "w"))
   file:write(string.format(
      '{"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,' ..
      '"connect_errors":%d,"read_errors":%d,"write_errors":%d,"status_errors":%d,"timeouts":%d}\n',
      summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
      latency:percentile(99.9), latency.max, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
   file:close()
end
