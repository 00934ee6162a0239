-- What a provider's answer said of a deployment's limits. KEYS: the pool's prefix. ARGV: lane, key, the bucket's mark when the
-- call was taken, JSON of {dimension: {limit a minute, what is left or null, burst or null}}.
local p = KEYS[1]
local now = now_ms()
local name = bucket_key(p, ARGV[2], ARGV[3])
local marked, mark = {}, {}
for part in ARGV[4]:gmatch('[^:]+') do marked[#marked + 1] = tonumber(part) end
local at, under_way = marked[1], marked[2]
for index, dimension in ipairs(DIMENSIONS) do mark[dimension] = marked[index + 2] end
local held = fields_of(name)
local fields = {'told', now}
for dimension, said in pairs(cjson.decode(ARGV[5])) do
  local a_minute, left, burst = said[1], said[2], said[3]
  fields[#fields + 1] = 'L' .. dimension
  fields[#fields + 1] = a_minute
  if dimension == 'r' and burst ~= cjson.null then
    fields[#fields + 1] = 'Lb'
    fields[#fields + 1] = burst
  end
  if left ~= cjson.null and mark[dimension] and held[dimension] then
    -- What was left when the call arrived, less all that has been drawn since it was taken. Where the provider has less than
    -- we believe, since others may use the key too, what has refilled since counts; where it has more, it does not, and
    -- calls that were under way may have arrived after this one.
    local since = left - ((held['n' .. dimension] or 0) - mark[dimension])
    local level = math.min(held[dimension], since + math.max(0, now - at) * a_minute / 60000)
    if dimension == 'r' then
      -- By halves: another gateway may be told the same just now.
      level = math.max(level, level + (math.min(since - under_way, a_minute * BELIEVED) - level) / 2)
    end
    if level ~= held[dimension] then
      fields[#fields + 1] = dimension
      fields[#fields + 1] = level
    end
  end
end
redis.call('HSET', name, unpack(fields))
keep(name)
redis.call('ZADD', p .. 'lanes', 'LT', 'XX', now, ARGV[2])
