-- What our scripts in all DAWs with Lua share: JSON, files that appear whole, the mailbox, the daemon.
-- Lua 5.3 and later, its own library only. The file returns a table of functions; nothing is global.
-- The files of the mailbox are described in bridge/MAILBOX.md.

local M = { VERSION = 1 }

-- JSON (RFC 8259). null is M.null, so that arrays keep their length; an empty table is written as an object, unless it
-- went through M.array. What is read is data: nothing of it is ever run.

M.null = setmetatable({}, { __tostring = function() return "null" end })
local ARRAY = {}

function M.array(list) return setmetatable(list or {}, ARRAY) end

local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local DEEPEST = 64

local function fail(at, what) error(("JSON: %s at byte %d"):format(what, at), 0) end

local function skip(text, at) return text:match("^[ \t\r\n]*()", at) end

local function read_unit(text, at)
	local digits = text:match("^\\u(%x%x%x%x)", at)
	return digits and tonumber(digits, 16)
end

local function read_string(text, at)
	local parts, from = {}, at + 1
	while true do
		local stop = text:find('[%c"\\]', from)
		if not stop then fail(at, "a text without end") end
		parts[#parts + 1] = text:sub(from, stop - 1)
		local character = text:sub(stop, stop)
		if character == '"' then return table.concat(parts), stop + 1 end
		if character == "\127" then
			parts[#parts + 1], from = character, stop + 1
		elseif character ~= "\\" then
			fail(stop, "a control character in a text")
		elseif text:sub(stop + 1, stop + 1) == "u" then
			local unit = read_unit(text, stop) or fail(stop, "a broken escape")
			from = stop + 6
			if unit >= 0xD800 and unit < 0xDC00 then
				local low = read_unit(text, from)
				if low and low >= 0xDC00 and low < 0xE000 then
					unit, from = 0x10000 + (unit - 0xD800) * 0x400 + low - 0xDC00, from + 6
				end
			end
			if unit >= 0xD800 and unit < 0xE000 then unit = 0xFFFD end
			parts[#parts + 1] = utf8.char(unit)
		else
			parts[#parts + 1] = ESCAPES[text:sub(stop + 1, stop + 1)] or fail(stop, "a broken escape")
			from = stop + 2
		end
	end
end

local read_value

local function read_members(text, at, close, depth, take)
	at = skip(text, at + 1)
	if text:sub(at, at) == close then return at + 1 end
	while true do
		at = skip(text, take(at, depth))
		local character = text:sub(at, at)
		if character == close then return at + 1 end
		if character ~= "," then fail(at, "a comma or the end is missing") end
		at = skip(text, at + 1)
	end
end

function read_value(text, at, depth)
	if depth > DEEPEST then fail(at, "nested too deeply") end
	local character = text:sub(at, at)
	if character == '"' then return read_string(text, at) end
	if character == "{" then
		local object = {}
		return object, read_members(text, at, "}", depth, function(here)
			if text:sub(here, here) ~= '"' then fail(here, "a name is missing") end
			local name, after = read_string(text, here)
			after = skip(text, after)
			if text:sub(after, after) ~= ":" then fail(after, "a colon is missing") end
			object[name], after = read_value(text, skip(text, after + 1), depth + 1)
			return after
		end)
	end
	if character == "[" then
		local list = M.array()
		return list, read_members(text, at, "]", depth, function(here)
			local value, after = read_value(text, here, depth + 1)
			list[#list + 1] = value
			return after
		end)
	end
	for word, value in pairs({ ["true"] = true, ["false"] = false, null = M.null }) do
		if text:sub(at, at + #word - 1) == word then return value, at + #word end
	end
	local number = text:match("^-?%d+", at)
	if not number or number:find("^-?0%d") then fail(at, "not a value") end
	number = number .. (text:match("^%.%d+", at + #number) or "")
	number = number .. (text:match("^[eE][+-]?%d+", at + #number) or "")
	local value = tonumber(number)
	return value, at + #number
end

function M.decode(text)
	local value, at = read_value(text, skip(text, 1), 1)
	at = skip(text, at)
	if at <= #text then fail(at, "something after the value") end
	return value
end

local function write_string(text)
	-- A name need not be UTF-8 everywhere; what is not becomes a sign that says so.
	if not utf8.len(text) then text = text:gsub("[\128-\255]", "\239\191\189") end
	return '"' .. text:gsub('[%c"\\]', function(character) return ("\\u%04x"):format(character:byte()) end) .. '"'
end

function M.encode(value)
	local kind = type(value)
	if value == M.null or value == nil then return "null" end
	if kind == "string" then return write_string(value) end
	if kind == "boolean" then return tostring(value) end
	if kind == "number" then
		if math.type(value) == "integer" then return ("%d"):format(value) end
		if value ~= value or value == math.huge or value == -math.huge then return "null" end
		return (("%.17g"):format(value):gsub(",", ".")) -- some systems' locale has a decimal comma
	end
	if kind ~= "table" then error("JSON has no " .. kind, 0) end
	local parts = {}
	if getmetatable(value) == ARRAY or #value > 0 then
		for index = 1, #value do parts[index] = M.encode(value[index]) end
		return "[" .. table.concat(parts, ",") .. "]"
	end
	local names = {}
	for name in pairs(value) do names[#names + 1] = name end
	table.sort(names)
	for index, name in ipairs(names) do parts[index] = write_string(name) .. ":" .. M.encode(value[name]) end
	return "{" .. table.concat(parts, ",") .. "}"
end

-- A field of something decoded: nil where it is null, false or missing.
function M.get(object, name)
	local value = type(object) == "table" and object[name] or nil
	if value ~= M.null then return value end
end

-- Files.

function M.read(path)
	local file = io.open(path, "rb")
	if not file then return nil end
	local text = file:read("a")
	file:close()
	return text
end

-- Writes a file so that a reader sees all of it or none.
function M.write(path, text)
	local part = path .. ".part"
	local file, why = io.open(part, "wb")
	if not file then return nil, why end
	local done, problem = file:write(text)
	if done then done, problem = file:close() else file:close() end
	if not done then
		os.remove(part)
		return nil, problem
	end
	local moved, reason = os.rename(part, path)
	if not moved then -- Windows replaces no file by renaming
		os.remove(path)
		moved, reason = os.rename(part, path)
	end
	return moved, reason
end

function M.read_json(path)
	local text = M.read(path)
	if not text then return nil end
	local ok, value = pcall(M.decode, text)
	return ok and type(value) == "table" and value or nil
end

function M.write_json(path, value) return M.write(path, M.encode(value)) end

-- 16 hexadecimal digits that tell texts apart (FNV-1a of 64 bits): not a secret, not a signature.
function M.digest(text)
	local hash = 0xcbf29ce484222325
	for index = 1, #text do hash = (hash ~ text:byte(index)) * 0x100000001b3 end
	return ("%016x"):format(hash)
end

local serial = 0
function M.new_id()
	serial = serial + 1
	return M.digest(("%s %s %s %d %s"):format(os.time(), os.clock(), tostring({}), serial, tostring(M)))
end

function M.gain(decibels) return 10 ^ (decibels / 20) end

-- The mailbox.

-- What the installer wrote beside the script: where the mailbox is, and how the daemon is started.
function M.settings(folder)
	local settings = M.read_json(folder .. "/installed.json")
	if not settings then
		return nil, "The scripts are not installed completely: run `revithion-stems daw install` again."
	end
	return settings
end

function M.open(settings, daw, session_path)
	local box = { name = daw .. "-" .. M.digest(session_path), folder = settings.mailboxes, settings = settings }
	function box.path(kind, id)
		return ("%s/%s.%s%s.json"):format(box.folder, box.name, kind, id and "-" .. id or "")
	end
	return setmetatable(box, { __index = M })
end

-- Tells others that this session is open; call it each second. The file's age is how they know that it still is.
function M.announce(box, session)
	session.v = M.VERSION
	session.at = os.time()
	return M.write_json(box.path("session"), session)
end

function M.leave(box) os.remove(box.path("session")) end

-- A command from another program, or nil. It is taken out: answer it, whatever happens.
function M.receive(box)
	local path = box.path("inbox")
	local command = M.read_json(path)
	if command then os.remove(path) end
	return command
end

function M.answer(box, command, result)
	result.v, result.id = M.VERSION, command.id
	return M.write_json(box.path("answer", command.id), result)
end

-- A request to the daemon; the id, or nil and why not.
function M.request(box, request)
	local id = M.new_id()
	request.v, request.id, request.box = M.VERSION, id, box.name
	local done, why = M.write_json(box.path("request", id), request)
	if not done then return nil, why end
	return id
end

function M.status(box, id) return M.read_json(box.path("status", id)) end

function M.cancel(box, id) return M.write_json(box.path("cancel", id), { v = M.VERSION, id = id }) end

-- Forgets a request that is over.
function M.forget(box, id)
	for _, kind in ipairs({ "request", "cancel", "status" }) do os.remove(box.path(kind, id)) end
end

-- The daemon.

-- Its connection file, or nil where none runs. A daemon that was killed leaves the file: only an answer proves it.
function M.connection(settings) return M.read_json(settings.connection) end

-- One argument for the system's shell; nothing in it is special then.
function M.quote(text, windows)
	if windows then return '"' .. text:gsub('"', '') .. '"' end -- a file's name there has no quotes
	return "'" .. text:gsub("'", [['\'']]) .. "'"
end

return M
