"""What Redis runs for the store, each script as one step that nobody sees half done.

The keys are described in `training_hooks.store_reader`. Conventions of the scripts:

- `KEYS[1]` is the beginning of the project's keys; the scripts add to it.
- Ids and revisions stay text: Lua's numbers are exact only up to 2^53.
- A *mark* is a number of the project's sequence, or "" for none. What the store learnt after
  a mark is not touched by those who only know what was true before it.
- Redis refuses a script that would write when memory is out at the first command that may
  need memory, and not any more once it has written: so nothing is half done then.
"""

from __future__ import annotations

from typing import Final

_SHARED: Final = """
local base = KEYS[1]

-- The clock keeps numbers growing where the end of Redis's file was lost, too.
local function next_number()
  local time = redis.call('TIME')
  local last = tonumber(redis.call('GET', base .. ':sequence') or 0)
  local number = math.max(last + 1, time[1] * 1000000 + time[2])
  local text = string.format('%.0f', number)
  redis.call('SET', base .. ':sequence', text)
  return text
end

-- Takes an annotation out of every index and removes it. False where there is none.
local function remove(id)
  local row = base .. ':annotation:' .. id
  local old = redis.call('HMGET', row, 'task', 'verdict', 'shown', 'iou')
  local task, verdict, shown, iou = old[1], old[2], old[3], old[4]
  if not task then
    return false
  end
  redis.call('DEL', row)
  redis.call('SREM', base .. ':task:' .. task, id)
  if verdict == '' then
    redis.call('ZREM', base .. ':withdrawn', id)
    return true
  end
  redis.call('ZREM', base .. ':order', id)
  redis.call('ZREM', base .. ':updated', id)
  redis.call('ZREM', base .. ':verdict:' .. verdict, id)
  redis.call('ZREM', base .. ':lead:' .. shown, id)
  redis.call('HINCRBY', base .. ':sums', shown, -1)
  if iou ~= '' then
    redis.call('HINCRBY', base .. ':sums', 'ious', -1)
    redis.call('HINCRBY', base .. ':sums', 'iou', 0 - tonumber(iou))
  end
  return true
end
"""

PUT: Final = (
    _SHARED
    + """
-- KEYS[2]: the registry of projects.
local id, task, revision, mark = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]) or -1
local verdict, shown, iou, lead, updated = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local body, name, project = ARGV[10], ARGV[11], ARGV[12]
local row = base .. ':annotation:' .. id

local annotation_gone = redis.call('ZSCORE', base .. ':deleted', id)
local task_gone = redis.call('ZSCORE', base .. ':deleted-tasks', task)
if (annotation_gone and tonumber(annotation_gone) > mark)
    or (task_gone and tonumber(task_gone) > mark) then
  return 'deleted'
end

local old = redis.call('HMGET', row, 'revision', 'number')
if old[1] then
  if old[1] == revision then
    return 'same'
  end
  if revision < old[1] and tonumber(old[2]) > mark then
    return 'stale'
  end
end

local number = next_number()
redis.call('HSET', KEYS[2], name, project)
redis.call('ZREM', base .. ':deleted', id)
redis.call('ZREM', base .. ':deleted-tasks', task)
remove(id)
redis.call('HSET', row, 'revision', revision, 'number', number, 'task', task,
           'verdict', verdict, 'shown', shown, 'iou', iou, 'body', body)
redis.call('SADD', base .. ':task:' .. task, id)
if verdict == '' then
  redis.call('ZADD', base .. ':withdrawn', number, id)
else
  redis.call('ZADD', base .. ':order', number, id)
  redis.call('ZADD', base .. ':updated', updated, id)
  redis.call('ZADD', base .. ':verdict:' .. verdict, number, id)
  redis.call('HINCRBY', base .. ':sums', shown, 1)
  if lead ~= '' then
    redis.call('ZADD', base .. ':lead:' .. shown, lead, id)
  end
  if iou ~= '' then
    redis.call('HINCRBY', base .. ':sums', 'ious', 1)
    redis.call('HINCRBY', base .. ':sums', 'iou', iou)
  end
end
return old[1] and 'updated' or 'created'
"""
)
"""Stores a correction, or without a verdict a withdrawal. Returns an `Outcome`."""

DELETE: Final = (
    _SHARED
    + """
local id, mark = ARGV[1], tonumber(ARGV[2])
if mark then
  local number = redis.call('HGET', base .. ':annotation:' .. id, 'number')
  if not number or tonumber(number) > mark then
    return 0
  end
end
local existed = remove(id)
redis.call('ZADD', base .. ':deleted', next_number(), id)
return existed and 1 or 0
"""
)
"""Removes an annotation for good. Returns 1 where there was one."""

DELETE_TASK: Final = (
    _SHARED
    + """
local task = ARGV[1]
local removed = 0
for _, id in ipairs(redis.call('SMEMBERS', base .. ':task:' .. task)) do
  if remove(id) then
    removed = removed + 1
  end
  redis.call('ZADD', base .. ':deleted', next_number(), id)
end
redis.call('ZADD', base .. ':deleted-tasks', next_number(), task)
return removed
"""
)
"""Removes all annotations of a task for good. Returns how many there were."""

STATISTICS: Final = """
local base = KEYS[1]

local function median(kind)
  local key = base .. ':lead:' .. kind
  local count = redis.call('ZCARD', key)
  if count == 0 then
    return {}
  end
  local first, last = math.floor((count - 1) / 2), math.floor(count / 2)
  local found = redis.call('ZRANGE', key, first, last, 'WITHSCORES')
  return {found[2], found[#found]}
end

local verdicts = {}
for _, verdict in ipairs(ARGV) do
  verdicts[#verdicts + 1] = redis.call('ZCARD', base .. ':verdict:' .. verdict)
end
return {
  verdicts,
  redis.call('ZCARD', base .. ':withdrawn'),
  redis.call('ZCARD', base .. ':deleted'),
  redis.call('HMGET', base .. ':sums', 'shown', 'ious', 'iou'),
  median('shown'),
  median('alone')
}
"""
"""Counts all verdicts of `ARGV` and what `Statistics` needs; O(log n)."""
