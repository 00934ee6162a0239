-- Where a waiting job stands. KEYS: the pool's prefix. ARGV: lane, id, JSON of {lane or '*': [{key, weight, limit, mark}, ...]}.
-- Returns {jobs that go before it, jobs/s of the lane}, or false for a job that does not wait there.
local SAMPLES, SAMPLED, MOST = 16, 16, 500
local p, lane, id = KEYS[1], ARGV[2], ARGV[3]
local now = now_ms()
local job = facts_of(p, lane, id)
local rank = job and redis.call('ZRANK', p .. 'waiting:' .. lane .. ':' .. job.flow, id)
if not rank then return false end

-- Returns what a few evenly spaced jobs among a flow's first `count` weigh: {its place, its weight, how many it stands for}s.
local function weights(flow, count, most)
  local found, step = {}, math.max(1, count / most)
  local usage = usage_of(p, lane, tenant_of(flow))
  for at = 0, count - 1, step do
    local place = math.floor(at)
    local one = redis.call('ZRANGE', p .. 'waiting:' .. lane .. ':' .. flow, place, place)[1]
    local facts = one and facts_of(p, lane, one)
    if facts then
      facts.usage = usage
      found[#found + 1] = {place, charge(facts), step}
    end
  end
  return found
end

local function length_of(flow) return redis.call('ZCARD', p .. 'waiting:' .. lane .. ':' .. flow) end

-- Returns how many jobs of a tenant wait, and what a few of them weigh, in the order of their turn: its flows take turns.
local function of_tenant(tenant)
  local flows, waiting, found = redis.call('ZRANGE', p .. 'turns:' .. lane .. ':' .. tenant, 0, MOST - 1), 0, {}
  if #flows == 0 then flows = {tenant} end
  local looked = math.min(#flows, SAMPLES)
  for index, flow in ipairs(flows) do
    local length = length_of(flow)
    waiting = waiting + length
    for _, one in ipairs(index <= looked and weights(flow, length, SAMPLES / looked) or {}) do found[#found + 1] = one end
  end
  table.sort(found, function(one, other) return one[1] < other[1] end)
  return waiting, found
end

-- Returns how many of these jobs go before a virtual time, and what they weigh; `tag` is when the first of them starts.
local function before_turn(jobs, tag, turn)
  local count, weight = 0, 0
  for _, one in ipairs(jobs) do
    if tag >= turn then break end
    local part = math.min(one[3], (turn - tag) / one[2])
    count, weight = count + part, weight + part * one[2]
    tag = tag + one[2] * one[3]
  end
  return count, weight
end

-- First among the flows of its tenant: when the job's turn comes there, and what goes before it.
local scope = lane .. ':' .. job.tenant
local before, ahead = rank, 0
for _, one in ipairs(weights(job.flow, rank, SAMPLES)) do ahead = ahead + one[2] * one[3] end
local turn = tag_of(p, scope, job.flow) + ahead
for index, flow in ipairs(redis.call('ZRANGE', p .. 'turns:' .. scope, 0, MOST - 1)) do
  if flow ~= job.flow then
    local waiting = length_of(flow)
    if index > SAMPLED then
      before = before + math.min(waiting, rank + 1)
    else
      local count, weight = before_turn(weights(flow, waiting, SAMPLES), tag_of(p, scope, flow), turn)
      before, ahead = before + math.floor(math.min(waiting, count + 0.5)), ahead + weight
    end
  end
end

-- Then among the tenants of the lane.
local inside = before
turn = tag_of(p, lane, job.tenant) + ahead
for index, tenant in ipairs(redis.call('ZRANGE', p .. 'turns:' .. lane, 0, MOST - 1)) do
  if tenant ~= job.tenant then
    local waiting, jobs = of_tenant(tenant)
    local count = index > SAMPLED and inside + 1 or before_turn(jobs, tag_of(p, lane, tenant), turn) + 0.5
    before = before + math.floor(math.min(waiting, count))
  end
end

-- What the limits let through, where they are known: more than that was a burst.
local pace, allowed = pace_of(p, lane, now), 0
local all = cjson.decode(ARGV[4])
for _, one in ipairs(all[lane] or all['*'] or {}) do
  allowed = allowed + (read_bucket(p, lane, one[1], one[3], now, one[4]).rate.r or math.huge) * 1000
end
if allowed > 0 and allowed < math.huge then pace = pace > 0 and math.min(pace, allowed) or allowed end
return {before, tostring(pace)}
