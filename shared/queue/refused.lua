-- A deployment was told that it asks too much: it rests, and goes on more slowly. KEYS: the pool's prefix. ARGV: lane, key, ms.
local FIRST_PACE = 120
local p = KEYS[1]
local now = now_ms()
local name = bucket_key(p, ARGV[2], ARGV[3])
local held = fields_of(name)
-- Many calls that were under way are refused together: that is one piece of news.
if now - (held.refused or 0) > 1000 then
  -- The first refusal says only that it was too much: what the provider takes is found from what it took lately.
  local _, good = faded(held.bad, held.good, held.judged, now)
  redis.call('HSET', name, 'refused', now, 'factor', math.max(0.1, recovered(held.factor, held.refused, now) * 0.8),
    'ceiling', held.pace or 1e12, 'pace', math.max(1, 0.7 * (held.pace or math.max(FIRST_PACE, lately(good)))))
end
redis.call('HSET', name, 'rest', math.max(now + ARGV[4], held.rest or 0))
keep(name)
