-- A call went badly for a reason that lies with its provider: enough of them in a row, or most of them lately, open the
-- deployment's circuit. KEYS: the pool's prefix. ARGV: lane, key, the mark of a key that was refused itself (else ''), when the
-- call was drawn for (ms), the mark of the key's present value ('': unknown). Returns whether the circuit opened.
local OPEN_MS, LONGEST_MS = 1000, 4000
local OUT_MS, LONGEST_OUT_MS = 5000, 60000
local IN_A_ROW, ENOUGH = 5, 5
local p = KEYS[1]
local now = now_ms()
local name = bucket_key(p, ARGV[2], ARGV[3])
local held = fields_of(name)
if held.open and held.why ~= 'errors' and ARGV[6] ~= '' and held.why ~= ARGV[6] then
  -- It was another value of the key that was refused.
  redis.call('HDEL', name, 'open', 'opened', 'opens', 'why', 'probing')
  held.open, held.opens, held.probing = nil, nil, nil
end
local bad, good = faded(held.bad, held.good, held.judged, now)
local streak = (held.streak or 0) + 1
bad = bad + 1
redis.call('HSET', name, 'bad', bad, 'good', good, 'judged', now, 'streak', streak)
keep(name)
-- What fails while the circuit is open was sent before, unless it is the one call that tries: then it stays open for longer.
local known = held.open and (ARGV[4] == '' or held.why == ARGV[4])
if known and not (held.probing and (tonumber(ARGV[5]) or now) >= held.probing) then return 0 end
if ARGV[4] == '' and not known and streak < IN_A_ROW and (bad < ENOUGH or bad <= good) then return 0 end
local opens = (known and held.opens or 0) + 1
local wait = ARGV[4] == '' and math.min(LONGEST_MS, OPEN_MS * opens) or math.min(LONGEST_OUT_MS, OUT_MS * 2 ^ (opens - 1))
redis.call('HSET', name, 'why', ARGV[4] == '' and 'errors' or ARGV[4], 'opens', opens, 'opened', now,
  'open', now + wait)
redis.call('HDEL', name, 'probing')
return known and 0 or 1
