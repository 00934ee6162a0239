-- Prolongs leases. KEYS: the pool's prefix. ARGV: lease (ms), then lane, id, key, repeated. What left the queue stays out.
local p = KEYS[1]
local till = now_ms() + ARGV[2]
for i = 3, #ARGV, 3 do
  redis.call('ZADD', p .. 'queue:' .. ARGV[i], 'XX', till, ARGV[i + 1])
  redis.call('ZADD', p .. 'flight:' .. ARGV[i] .. ':' .. ARGV[i + 2], 'XX', till, ARGV[i + 1])
  local job = facts_of(p, ARGV[i], ARGV[i + 1])
  if job then redis.call('ZADD', flight_of(job.tenant), 'XX', till, ARGV[i + 1]) end
end
