-- Puts a flow of a lane on hold: none of its jobs is taken for so long. KEYS: the pool's prefix. ARGV: lane, flow, ms.
local p, lane = KEYS[1], ARGV[2]
local till = now_ms() + ARGV[4]
hold(p, lane, held_as(ARGV[3]), till)
-- It is looked at then at the latest, whether jobs wait or not.
redis.call('ZADD', p .. 'lanes', 'LT', till, lane)
