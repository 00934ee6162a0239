-- A deployment was refused: it rests, and goes on more slowly than it was allowed to. KEYS: the pool's prefix. ARGV: lane, key, ms.
local p = KEYS[1]
local now = now_ms()
local name = bucket_key(p, ARGV[2], ARGV[3])
local held = redis.call('HMGET', name, 'rest', 'factor', 'refused')
local till = math.max(now + ARGV[4], tonumber(held[1] or 0))
-- Many calls that were under way are refused together: that is one piece of news.
if now - tonumber(held[3] or 0) > 1000 then
  redis.call('HSET', name, 'factor', math.max(0.1, recovered(held[2], held[3], now) * 0.8), 'refused', now)
end
redis.call('HSET', name, 'rest', till)
redis.call('PEXPIRE', name, 3600000)
