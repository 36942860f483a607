-- Tracks of a project: which are ours, how they nest, what they feed.

local M = ...
local common = M.common
local T = {}

local EXT = "P_EXT:revithion_stems" -- saved with the project; nobody sees it
T.EXT = EXT
local SOURCE = EXT .. "_source" -- which track it was made from

function T.one_line(text) return (text:gsub("%c", " ")) end

function T.guid(track) return reaper.GetTrackGUID(track) end

function T.value(track, name) return reaper.GetMediaTrackInfo_Value(track, name) end

function T.set(track, name, value) reaper.SetMediaTrackInfo_Value(track, name, value) end

function T.name(track)
	local _, name = reaper.GetSetMediaTrackInfo_String(track, "P_NAME", "", false)
	return name
end

function T.all(project)
	local list = {}
	for index = 1, reaper.CountTracks(project) do list[index] = reaper.GetTrack(project, index - 1) end
	return list
end

function T.index(project, guid)
	for index, track in ipairs(T.all(project)) do
		if T.guid(track) == guid then return index, track end
	end
end

-- Marks. A key may hold anything; in a project file it is one word.

local function mark_text(identity, role, key)
	local word = key:gsub("[^%w._-]", function(byte) return ("%%%02X"):format(byte:byte()) end)
	return ("revithion-stems:%s:%s:%s"):format(identity, role, word)
end

local function read_mark(track)
	local _, text = reaper.GetSetMediaTrackInfo_String(track, EXT, "", false)
	local identity, role, word = text:match("^revithion%-stems:(%x+):(%a+):(.*)$")
	if not identity then return nil end
	local key = word:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
	local _, source = reaper.GetSetMediaTrackInfo_String(track, SOURCE, "", false)
	return { identity = identity, role = role, key = key, source = source, track = track, guid = T.guid(track) }
end

function T.set_source(track, guid) reaper.GetSetMediaTrackInfo_String(track, SOURCE, guid, true) end

-- All that are ours, of one identity or (if empty) of any.
function T.ours(project, identity)
	local list = {}
	for _, track in ipairs(T.all(project)) do
		local mark = read_mark(track)
		if mark and (identity == "" or mark.identity == identity) then list[#list + 1] = mark end
	end
	return list
end

-- Of a gain of REAPER's, within what plans allow. A negative one turns the phase.
function T.decibels(gain) return math.min(24, math.max(-120, 20 * math.log(math.max(math.abs(gain), 1e-6), 10))) end

-- What plans of other identities have made from a track, and from what they have made, by GUID: two sets of one source
-- would sound together. A copy that the user made stays.
function T.others_from(project, source_guid, identity)
	local marks, seen, sources, found = {}, {}, { [source_guid] = true }, {}
	for _, mark in ipairs(T.ours(project, "")) do
		local place = mark.identity .. mark.role .. mark.key
		if mark.identity ~= identity and not seen[place] then marks[#marks + 1] = mark end
		seen[place] = true
	end
	local any
	repeat
		any = false
		for _, mark in ipairs(marks) do
			if sources[mark.source] and not found[mark.guid] then
				found[mark.guid], sources[mark.guid], any = true, true, true
			end
		end
	until not any
	return found
end

-- A track or bus of ours as others are told of it.
function T.strip(mark)
	return {
		identity = mark.identity,
		role = mark.role,
		key = mark.key,
		name = T.name(mark.track),
		gain_db = T.decibels(T.value(mark.track, "D_VOL")),
		muted = T.value(mark.track, "B_MUTE") ~= 0,
	}
end

function T.strips(project)
	local list = common.array()
	for _, mark in ipairs(T.ours(project, "")) do
		if mark.role == "track" or mark.role == "bus" then list[#list + 1] = T.strip(mark) end
	end
	return list
end

-- Nesting. REAPER keeps for each track how much deeper the next one is; that is easily broken by inserting and removing
-- tracks. So both are done on the depths themselves, 0 for the outermost, and written back as differences.

local function step(track) return math.floor(T.value(track, "I_FOLDERDEPTH")) end

local function read_depths(project)
	local depths, depth = {}, 0
	for index, track in ipairs(T.all(project)) do
		depths[index] = depth
		depth = math.max(0, depth + step(track))
	end
	depths[#depths + 1] = depth -- of what would follow the last one
	return depths
end

local function write_depths(project, depths)
	for index, track in ipairs(T.all(project)) do
		if math.max(0, depths[index] + step(track)) ~= depths[index + 1] then
			T.set(track, "I_FOLDERDEPTH", depths[index + 1] - depths[index])
		end
	end
end

function T.depth(project, guid) return read_depths(project)[T.index(project, guid)] end

-- Where the next track after this one, and after all that is in it, stands.
function T.after(project, guid)
	local depths = read_depths(project)
	local index = T.index(project, guid)
	local depth = depths[index]
	repeat index = index + 1 until not depths[index + 1] or depths[index] <= depth
	return index
end

-- A new track at an index from 1 on. The project must be the one in front.
function T.insert(project, index, depth)
	local depths = read_depths(project)
	reaper.InsertTrackAtIndex(index - 1, false)
	table.insert(depths, index, depth)
	write_depths(project, depths)
	return reaper.GetTrack(project, index - 1)
end

-- Removes tracks, by GUID; what was in a folder that goes stays, one level up.
function T.remove(project, doomed)
	local depths, kept, around, gone = read_depths(project), {}, {}, {}
	for index, track in ipairs(T.all(project)) do
		while around[1] and depths[index] <= around[#around] do table.remove(around) end
		if doomed[T.guid(track)] then
			gone[#gone + 1] = track
			around[#around + 1] = depths[index]
		else
			kept[#kept + 1] = depths[index] - #around
		end
	end
	local last = depths[#depths]
	while around[1] and last <= around[#around] do table.remove(around) end
	kept[#kept + 1] = last - #around
	for _, track in ipairs(gone) do reaper.DeleteTrack(track) end
	write_depths(project, kept)
end

-- A new track's looks and fader; from then on these are the user's.
function T.dress(track, strip, identity, role)
	local red, green, blue = strip.colour:match("^#(%x%x)(%x%x)(%x%x)$")
	local native = reaper.ColorToNative(tonumber(red, 16), tonumber(green, 16), tonumber(blue, 16))
	reaper.GetSetMediaTrackInfo_String(track, "P_NAME", T.one_line(strip.name), true)
	reaper.GetSetMediaTrackInfo_String(track, EXT, mark_text(identity, role, strip.key), true)
	reaper.SetTrackColor(track, native | 0x1000000) -- without this bit REAPER shows no colour
	T.set(track, "D_VOL", common.gain(strip.gain_db))
	T.set(track, "D_PAN", 0)
	T.set(track, "B_MUTE", strip.muted and 1 or 0)
	T.set(track, "I_NCHAN", T.channels(strip.channels))
end

-- REAPER's tracks have an even number of channels, two at least.
function T.channels(count) return math.max(2, count + count % 2) end

-- Routing. Sends that we made are marked as tracks are; those of the user are not ours to judge. A project file that was
-- written outside REAPER has our sends without marks: one that goes where a wire of ours should is taken for it.

local function our_sends(track, wires)
	local list, marked, plain = {}, {}, {}
	for index = 0, reaper.GetTrackNumSends(track, 0) - 1 do
		local _, role = reaper.GetSetTrackSendInfo_String(track, 0, index, EXT, "", false)
		local target = T.guid(reaper.GetTrackSendInfo_Value(track, 0, index, "P_DESTTRACK"))
		if role ~= "" then
			list[#list + 1] = { index = index, id = role .. target }
			marked[role .. target] = true
		else
			plain[target] = plain[target] or index
		end
	end
	for _, wire in ipairs(wires) do
		local target = T.guid(wire.track)
		local id = wire.role .. target
		if plain[target] and not marked[id] then
			list[#list + 1] = { index = plain[target], id = id }
			plain[target] = nil
		end
	end
	table.sort(list, function(one, other) return one.index < other.index end)
	return list
end

local function wanted_sends(wires)
	local wanted = {}
	for _, wire in ipairs(wires) do wanted[wire.role .. T.guid(wire.track)] = wire end
	return wanted
end

-- Whether a track feeds what it should: `wires` are { track, role = "output" or "send", gain_db, pre_fader, channels }.
function T.is_wired(track, wires, to_master)
	local wanted = wanted_sends(wires)
	for _, send in ipairs(our_sends(track, wires)) do
		if not wanted[send.id] then return false end
		wanted[send.id] = nil
	end
	return next(wanted) == nil and (T.value(track, "B_MAINSEND") ~= 0) == to_master
end

function T.wire(track, wires, to_master)
	local wanted, sends = wanted_sends(wires), our_sends(track, wires)
	for at = #sends, 1, -1 do -- from the end, so that the others keep their index
		if wanted[sends[at].id] then
			wanted[sends[at].id] = nil
		else
			reaper.RemoveTrackSend(track, 0, sends[at].index)
		end
	end
	for _, wire in ipairs(wires) do
		if wanted[wire.role .. T.guid(wire.track)] then
			local index = reaper.CreateTrackSend(track, wire.track)
			local channels = T.channels(wire.channels)
			local values = {
				D_VOL = common.gain(wire.gain_db),
				D_PAN = 0,
				B_MUTE = 0,
				I_SENDMODE = wire.pre_fader and 3 or 0,
				I_SRCCHAN = channels > 2 and (channels // 2) << 10 or 0,
				I_DSTCHAN = 0,
			}
			for name, value in pairs(values) do reaper.SetTrackSendInfo_Value(track, 0, index, name, value) end
			reaper.GetSetTrackSendInfo_String(track, 0, index, EXT, wire.role, true)
		end
	end
	T.set(track, "B_MAINSEND", to_master and 1 or 0)
end

-- VCA groups: REAPER has 32 numbered groups, here as bits.

local GROUP_KINDS = {
	"VOLUME", "VOLUME_VCA", "PAN", "WIDTH", "MUTE", "SOLO", "RECARM", "POLARITY", "AUTOMODE", "MEDIA_EDIT",
}

local function follow(followers, bits)
	for _, track in ipairs(followers) do
		reaper.GetSetTrackGroupMembership(track, "VOLUME_VCA_FOLLOW", bits, bits)
	end
end

-- More followers for a leader that has some; one that leads no more is the user's wish.
function T.govern_also(leader, followers)
	follow(followers, reaper.GetSetTrackGroupMembership(leader, "VOLUME_VCA_LEAD", 0, 0))
end

function T.govern(project, leader, followers)
	local used = 0
	for _, track in ipairs(T.all(project)) do
		for _, kind in ipairs(GROUP_KINDS) do
			used = used | reaper.GetSetTrackGroupMembership(track, kind .. "_LEAD", 0, 0)
			used = used | reaper.GetSetTrackGroupMembership(track, kind .. "_FOLLOW", 0, 0)
		end
	end
	for number = 0, 31 do
		local bit = 1 << number
		if used & bit == 0 then
			reaper.GetSetTrackGroupMembership(leader, "VOLUME_VCA_LEAD", bit, bit)
			return follow(followers, bit)
		end
	end
end

return T
