-- Prolongs leases. KEYS: the pool's prefix. ARGV: lease (ms), then lane, id, key, repeated. What left the queue stays out.
local till = now_ms() + ARGV[2]
for i = 3, #ARGV, 3 do
  redis.call('ZADD', KEYS[1] .. 'queue:' .. ARGV[i], 'XX', till, ARGV[i + 1])
  redis.call('ZADD', KEYS[1] .. 'flight:' .. ARGV[i] .. ':' .. ARGV[i + 2], 'XX', till, ARGV[i + 1])
end
