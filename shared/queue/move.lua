-- Takes jobs out of motion. KEYS: the pool's prefix. ARGV: lane, id, due (ms; -1: it left the queue), repeated.
local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local fresh = false
for i = 1, #ARGV, 3 do
  local lane, id, due = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local queue = p .. 'queue:' .. lane
  if due < 0 then
    redis.call('ZREM', queue, id)
    redis.call('ZREM', p .. 'waiting:' .. lane, id)
  else
    redis.call('ZADD', queue, due, id)
    redis.call('ZREM', p .. 'waiting:' .. lane, id)
    redis.call('ZADD', p .. 'lanes', 'LT', due, lane)
    fresh = fresh or due <= now
  end
  redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
end
if fresh then
  redis.call('RPUSH', p .. 'wake', '1')
  redis.call('LTRIM', p .. 'wake', -16, -1)
end
