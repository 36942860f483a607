-- Where a plan's clips go, and the regions that they become.

local M = ...
local common, problem, ours = M.common, M.problem, M.ours
local K = {} -- C is Ardour's

-- Positions: beats and bars by the session's tempo map.

local function bar_ticks(bars)
	local map, ticks = Temporal.TempoMap.read(), 0
	for _ = 2, math.floor(bars) do
		local meter = map:meter_at(Temporal.timepos_t.from_ticks(ticks))
		ticks = ticks + meter:divisions_per_bar() * 4 * 1920 // meter:note_value()
	end
	local meter = map:meter_at(Temporal.timepos_t.from_ticks(ticks))
	local part = (bars - math.floor(bars)) * meter:divisions_per_bar() * 4 * 1920 / meter:note_value()
	return math.floor(ticks + part + 0.5)
end

function K.position_samples(position, plan)
	local rate, unit, value = Session:nominal_sample_rate(), position.unit, position.value
	if unit == "frames" then
		local of = common.get(plan, "project_rate") or rate
		return math.floor(value * rate / of + 0.5)
	elseif unit == "beats" then
		return Temporal.timepos_t.from_ticks(math.floor(value * 1920 + 0.5)):samples()
	elseif unit == "bars" then
		return Temporal.timepos_t.from_ticks(bar_ticks(value)):samples()
	end
	return math.floor(value * rate + 0.5)
end

-- Positions that count from what is selected, in samples from the session's start: the selection changes while strips are made.
function K.settle(plan)
	local first
	for _, track in ipairs(plan.tracks) do
		for _, clip in ipairs(track.clips) do
			if clip.position.unit == "selection" then
				if not first then
					for region in Editor:get_selection().regions:regionlist():iter() do
						first = math.min(first or math.huge, region:position():samples())
					end
				end
				if not first then problem("No region is selected that the stems could go to.", "Select one.") end
				local from = first / Session:nominal_sample_rate()
				clip.position = { unit = "seconds", value = from + clip.position.value }
			end
		end
	end
end

-- Imports a file without putting it anywhere; its whole region. Ardour copies it into the session, at the session's rate.
function K.import_file(path)
	local before = {}
	for _, region in ARDOUR.RegionFactory.regions():iter() do before[ours.id_of(region)] = true end
	local files = C.StringVector()
	files:push_back(path)
	Editor:do_import(files, Editing.ImportDistinctFiles, Editing.ImportAsRegion, ARDOUR.SrcQuality.SrcBest,
		ARDOUR.MidiTrackNameSource.SMFTrackName, ARDOUR.MidiTempoMapDisposition.SMFTempoIgnore, Temporal.timepos_t(0),
		ARDOUR.PluginInfo(), ARDOUR.Track(), false)
	for _, region in ARDOUR.RegionFactory.regions():iter() do
		if not before[ours.id_of(region)] and region:whole_file() then return region end
	end
	problem("Ardour could not import " .. path, "Is the disk full, or the file gone?")
end

function K.digest(track)
	local parts = {}
	for _, clip in ipairs(track.clips) do
		parts[#parts + 1] = ("%s %s %d %d %s %.17g %.17g"):format(clip.sha256, clip.sha256 == "" and clip.file or "",
			clip.start_frame, clip.frames, clip.position.unit, clip.position.value, clip.gain_db)
	end
	return common.digest(table.concat(parts, "\n"))
end

-- The region that a clip asks for, not yet on a track.
function K.make_region(clip, whole)
	local rate = Session:nominal_sample_rate()
	local function here(frames) return math.floor(frames * rate / clip.sample_rate + 0.5) end
	local region = ARDOUR.RegionFactory.clone_region(whole, true, false)
	local length = math.min(here(clip.frames), whole:length():samples() - here(clip.start_frame))
	region:set_length(Temporal.timecnt_t(length)) -- first: a start that is past the end is refused
	region:set_start(Temporal.timepos_t(here(clip.start_frame)))
	local audio = region:to_audioregion()
	audio:set_fade_in_active(false) -- Ardour's own 64-sample fades would break the sum
	audio:set_fade_out_active(false)
	audio:set_scale_amplitude(common.gain(clip.gain_db))
	return region
end

return K
