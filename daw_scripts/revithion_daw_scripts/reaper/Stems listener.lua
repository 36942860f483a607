-- @name Stems listener
-- @startup
-- Tells other programs which project is open, and does what they ask: imports stems, moves faders of our buses.

local folder = debug.getinfo(1, "S").source:match("^@(.*)[/\\]")
local stems = dofile(folder .. "/stems.lua")
local common, tracks = stems.common, stems.tracks

local SECTION, KEY = "revithion_stems", "listener" -- when the one that runs was last awake
local ANNOUNCE_S, ASLEEP_S = 1, 5

local settings, why = common.settings(stems.folder)
if not settings then return stems.separation.complain(why) end
local heard = tonumber(reaper.GetExtState(SECTION, KEY))
if heard and math.abs(reaper.time_precise() - heard) < ASLEEP_S then return end

local box, box_path, announced

local function announce(project, path, wanted)
	if wanted ~= box_path then
		if box then common.leave(box) end
		box, box_path = common.open(settings, "reaper", wanted), wanted
	end
	local name = path:match("([^/\\]*)$"):gsub("%.[Rr][Pp][Pp]$", "")
	local uses_rate = reaper.GetSetProjectInfo(project, "PROJECT_SRATE_USE", 0, false) ~= 0
	common.announce(box, {
		daw = "reaper",
		program = reaper.GetAppVersion(),
		name = name,
		path = path,
		sample_rate = uses_rate and math.floor(reaper.GetSetProjectInfo(project, "PROJECT_SRATE", 0, false)) or 0,
		strips = tracks.strips(project),
	})
end

local function set_faders(project, command)
	local set = common.array()
	for _, mark in ipairs(tracks.ours(project, common.get(command, "identity") or "")) do
		if mark.role == command.role and mark.key == command.key then
			local gain, muted = command.gain_db, command.muted
			if type(gain) == "number" then tracks.set(mark.track, "D_VOL", common.gain(gain)) end
			if type(muted) == "boolean" then tracks.set(mark.track, "B_MUTE", muted and 1 or 0) end
			set[#set + 1] = tracks.strip(mark)
		end
	end
	return { ok = true, strips = set }
end

local function obey(project, command)
	if command.type == "fader" then return set_faders(project, command) end
	if command.type == "import" then
		local strips, problem = stems.render.render(project, command.plan)
		return strips and { ok = true, strips = strips } or { ok = false, error = problem }
	end
	error("there is no command " .. tostring(command.type), 0)
end

local function tick()
	local now, project, path, wanted = reaper.time_precise(), stems.selection.project()
	if wanted ~= box_path or now - announced >= ANNOUNCE_S then
		announced = now
		reaper.SetExtState(SECTION, KEY, tostring(now), false)
		announce(project, path, wanted)
	end
	local command = common.receive(box)
	if command and type(command.id) == "string" and command.id:find("^[%w_-]+$") and #command.id <= 64 then
		local done, result = pcall(obey, project, command)
		if not done then
			local hint = "See the page of REAPER in docs/daw/."
			result = { ok = false, error = { code = "daw.refused", message = tostring(result), hint = hint } }
		end
		common.answer(box, command, result)
		announce(project, path, wanted)
	end
	reaper.defer(tick)
end

reaper.atexit(function()
	if box then common.leave(box) end
	reaper.SetExtState(SECTION, KEY, "", false)
end)
tick()
