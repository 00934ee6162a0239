-- Puts jobs in their lanes. KEYS: the pool's prefix. ARGV: JSON of {lane, id, run_at (ms), turn (ms)}s.
-- A job that is in motion or waiting already stays as it is, so this may be repeated at will.
local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local fresh = false
for _, new in ipairs(cjson.decode(ARGV[1])) do
  local lane, id, run_at, turn = new[1], new[2], new[3], new[4]
  local queue = p .. 'queue:' .. lane
  if not redis.call('ZSCORE', queue, id) then
    -- A second's slack: a clock that is a little ahead must not send a job round the timer.
    if run_at > now + 1000 then
      redis.call('ZADD', queue, run_at, id)
      redis.call('ZADD', p .. 'lanes', 'LT', run_at, lane)
    else
      redis.call('ZADD', p .. 'waiting:' .. lane, 'NX', turn, id)
      redis.call('ZADD', p .. 'lanes', 'LT', now, lane)
      fresh = true
    end
  end
end
if fresh then
  redis.call('RPUSH', p .. 'wake', '1')
  redis.call('LTRIM', p .. 'wake', -16, -1)
end
