-- Takes jobs out of motion. KEYS: the pool's prefix. ARGV: lane, id, due (ms; -1: it left the queue), key, input and output
-- tokens that were drawn for its call and not used (below 0: what it used besides), repeated.
local p = KEYS[1]
local now = now_ms()
local fresh = false
for i = 2, #ARGV, 6 do
  local lane, id, due, key = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local queue = p .. 'queue:' .. lane
  local job = facts_of(p, lane, id)
  if job and redis.call('ZREM', p .. 'waiting:' .. lane .. ':' .. job.tenant, id) == 1 then
    stand(p, lane, job.tenant, tonumber(redis.call('HGET', p .. 'tags:' .. lane, job.tenant) or 0))
  end
  give_back(p, lane, key, tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
  if key ~= '' then
    redis.call('ZREM', p .. 'flight:' .. lane .. ':' .. key, id)
    redis.call('ZADD', p .. 'lanes', 'LT', 'XX', now, lane)
    fresh = true
  end
  if due < 0 then
    redis.call('ZREM', queue, id)
    redis.call('HDEL', p .. 'facts:' .. lane, id)
  else
    redis.call('ZADD', queue, due, id)
    redis.call('ZADD', p .. 'lanes', 'LT', due, lane)
    fresh = fresh or due <= now
  end
  redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
end
if fresh then wake(p) end
