-- Requests to the daemon: from what is selected to the stems.

local M = ...
local common, settings, render, selection, ours = M.common, M.settings, M.render, M.selection, M.ours
local problem, as_problem, show_error, now_s, current_box = M.problem, M.as_problem, M.show_error, M.now_s, M.current_box
local Q = {}

local UNANSWERED_S = 3.0 -- after which a daemon is started
local GIVE_UP_S = 30.0

-- Requests that are under way are kept in a file, since actions and the hook have Lua states of their own.

local function read_pending() return common.read_json(current_box().path("pending")) or { requests = common.array() } end

local function write_pending(pending) common.write_json(current_box().path("pending"), pending) end

-- Tells the daemon that there is something; false where none seems to run.
local function ring()
	local connection = common.connection(settings)
	local port = connection and common.get(connection, "osc_udp_port")
	if port then
		ARDOUR.LuaOSC.Address(("osc.udp://127.0.0.1:%d"):format(port)):send("/revithion/v1/daw/ring", "ss",
			connection.osc_token, current_box().name)
	end
	return connection ~= nil
end

local function start_daemon()
	local windows = common.get(settings, "windows")
	local words = {}
	for index, word in ipairs(settings.start) do words[index] = common.quote(word, windows) end
	local command = table.concat(words, " ")
	if windows then
		os.execute('start "" /b ' .. command)
	else -- Ardour's own libraries are not meant for other programs
		os.execute("env -u LD_LIBRARY_PATH -u LD_PRELOAD " .. command .. " </dev/null >/dev/null 2>&1 &")
	end
end

function Q.separate(options)
	local this = current_box()
	local found = selection.items()
	if #found == 0 then
		problem("Nothing is selected that could be separated.", "Select an audio track, or regions of it.")
	end
	local pending = read_pending()
	for _, track in ipairs(found) do
		local id, why = common.request(this, {
			preset = options.preset or "", model = options.model or "", align_to = options.align_to or "item",
			project_rate = math.floor(Session:nominal_sample_rate()), folder = Session:path() .. "/stems",
			track = { id = ours.id_of(track.route), name = track.route:name() }, items = track.items,
		})
		if not id then problem("The mailbox can't be written: " .. tostring(why), "Is the disk full?") end
		pending.requests[#pending.requests + 1] = { id = id, name = track.route:name(), asked_at = now_s() }
	end
	write_pending(pending)
	if not ring() then start_daemon() end
end

-- Asks how; then the same.
function Q.ask()
	current_box()
	local presets, choices = {}, common.read_json(settings.mailboxes .. "/choices.json") or {}
	for _, preset in ipairs(choices.presets or {}) do presets[preset.label] = preset.name end
	if not next(presets) then presets["4 stems to buses"] = "" end
	local models = { ["the best there is"] = "" }
	for _, model in ipairs(choices.models or {}) do models[model] = model end
	local answer = LuaDialog.Dialog("Separate to stems", {
		{ type = "dropdown", key = "preset", title = "Preset", values = presets },
		{ type = "dropdown", key = "model", title = "Model", values = models, default = "the best there is" },
		{ type = "dropdown", key = "align_to", title = "Position",
			values = { ["where the regions are"] = "item", ["session start"] = "project_start" },
			default = "where the regions are" },
	}):run()
	if answer then Q.separate(answer) end
end

local progress = nil -- the window; nil where nothing is shown
local asked_for_daemon = nil

function Q.close_progress()
	if progress then progress:done() end
	progress = nil
end

local function finish(request)
	local this = current_box()
	local status = common.status(this, request.id)
	if status.state == "done" then
		local ok, why = pcall(render.render, status.plan)
		common.forget(this, request.id)
		if not ok then return as_problem(why) end
	else
		common.forget(this, request.id)
		if status.state == "failed" then return common.get(status, "error") or { message = "It failed.", hint = "" } end
	end
	return nil
end

local FINAL = { done = true, failed = true, cancelled = true }

-- Whole characters: a window's title has to be UTF-8.
local function shortened(name)
	local stop = utf8.len(name) and utf8.offset(name, 61)
	return stop and name:sub(1, stop - 1) or utf8.len(name) and name or "?"
end

-- One step of the requests that are under way.
function Q.follow()
	local this = current_box()
	local pending = read_pending()
	local requests = pending.requests
	if #requests == 0 then return Q.close_progress() end
	local fraction, text, ended, unanswered = 0, "", nil, 0
	for index, request in ipairs(requests) do
		local status = common.status(this, request.id)
		if status then
			fraction = fraction + (common.get(status, "fraction") or 0) / #requests
			if text == "" then text = common.get(status, "text") or status.state end
			if FINAL[status.state] and not ended then ended = index end
		else
			unanswered = math.max(unanswered, now_s() - request.asked_at)
		end
	end
	if not progress then
		progress = LuaDialog.ProgressWindow(M.TITLE .. ": " .. shortened(requests[1].name), true)
	end
	if progress:progress(math.min(fraction, 1), text ~= "" and text or "waiting for the daemon") then
		for _, request in ipairs(requests) do common.cancel(this, request.id) end
		ring()
		if unanswered > UNANSWERED_S then ended = ended or 1 end
		Q.close_progress()
	end
	local failure
	if ended then
		local request = table.remove(requests, ended)
		write_pending({ requests = common.array(requests) })
		Q.close_progress()
		if common.status(this, request.id) then failure = finish(request) else common.forget(this, request.id) end
	elseif unanswered > GIVE_UP_S then
		for _, request in ipairs(requests) do common.forget(this, request.id) end
		write_pending({ requests = common.array() })
		Q.close_progress()
		failure = { message = "The daemon does not answer.", hint = "`revithion-stems daw test ardour` looks for the cause." }
	elseif unanswered > UNANSWERED_S and (not asked_for_daemon or now_s() - asked_for_daemon > GIVE_UP_S) then
		asked_for_daemon = now_s()
		start_daemon()
	end
	if failure then show_error(failure.message, failure.hint) end
end

return Q
