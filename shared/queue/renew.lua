-- Prolongs leases. KEYS: the pool's prefix. ARGV: lease (ms), then lane, id, repeated. What left the queue stays out.
local time = redis.call('TIME')
local till = time[1] * 1000 + time[2] / 1000 + ARGV[1]
for i = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1] .. 'queue:' .. ARGV[i], 'XX', till, ARGV[i + 1])
end
