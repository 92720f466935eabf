-- Report views over the table that target-duckdb loads.
-- To create the views:
--
--     duckdb calls.duckdb < docs/sql/duckdb.sql
--
-- Run the file again after you edit it. docs/analysis.md describes the views.

-- Your settings.
CREATE OR REPLACE VIEW report_settings AS
SELECT
    'Australia/Melbourne' AS zone,     -- of the PBX's clock
    NULL::timestamp AS missing_since,  -- start_date in that zone; NULL: the first hour read
    5 AS settle_minutes,               -- as in the tap's settings
    30 AS long_call_minutes,
    90 AS retention_days,              -- how long the PBX keeps a recording
    7 AS warning_days;                 -- list a recording this many days before its deletion

-- The table that the target loads. The target makes empty strings null.
CREATE OR REPLACE VIEW legs AS
SELECT
    callrecordid AS call_record_id,
    leg,
    uniqueid AS unique_id,
    "start" AT TIME ZONE 'UTC' AS started_at,
    callend AT TIME ZONE 'UTC' AS ended_at,
    duration AS seconds,
    direction,
    source,
    destination,
    did,
    tag,
    username
FROM noojee.recordings;

-- The tap's state, as `meltano state get` prints it.
CREATE TABLE IF NOT EXISTS saved_state (
    saved_at timestamptz NOT NULL DEFAULT now(),
    state json NOT NULL
);

CREATE OR REPLACE VIEW bookmarks AS
SELECT
    'saved_state' AS state_id,
    state -> 'singer_state' -> 'bookmarks' -> 'recordings' AS bookmark
FROM saved_state
ORDER BY saved_at DESC
LIMIT 1;

CREATE OR REPLACE VIEW last_runs AS
SELECT
    NULL::text AS state_id,
    NULL::timestamptz AS last_success,
    NULL::timestamptz AS last_failure
WHERE false;

CREATE OR REPLACE VIEW hour_ranges AS
SELECT
    state_id,
    (hours ->> 'from')::timestamp AS from_hour,
    (hours ->> 'to')::timestamp AS to_hour
FROM (
    SELECT state_id, unnest((bookmark -> 'hours_read')::json[]) AS hours
    FROM bookmarks
);

-- From here on, postgres.sql and duckdb.sql are the same.

CREATE OR REPLACE VIEW calls AS
SELECT
    unique_id,
    min(started_at) AS started_at,
    max(ended_at) AS ended_at,
    count(*) AS legs,
    sum(seconds)::bigint AS recorded_seconds,
    extract(epoch FROM max(ended_at) - min(started_at))::bigint AS elapsed_seconds,
    (array_agg(direction ORDER BY leg))[1] AS direction,
    (array_agg(source ORDER BY leg))[1] AS source,
    (array_agg(did ORDER BY leg))[1] AS did
FROM legs
WHERE unique_id IS NOT NULL
GROUP BY unique_id;

CREATE OR REPLACE VIEW calls_by_hour AS
WITH started AS (
    SELECT
        date_trunc('hour', started_at AT TIME ZONE zone) AS local_hour,
        (started_at AT TIME ZONE zone) - (started_at AT TIME ZONE 'UTC') AS utc_offset,
        count(*) AS calls
    FROM calls, report_settings
    GROUP BY 1, 2
),
days AS (
    SELECT
        date_trunc('day', min(local_hour)) AS first_day,
        date_trunc('day', max(local_hour)) + INTERVAL '1 day' AS day_after
    FROM started
),
quarters AS (  -- some zones change their clocks in the middle of an hour
    SELECT zone, generate_series AS instant
    FROM days, report_settings, LATERAL generate_series(
        first_day AT TIME ZONE zone,
        day_after AT TIME ZONE zone - INTERVAL '15 minutes',
        INTERVAL '15 minutes'
    )
),
local_hours AS (
    SELECT DISTINCT
        date_trunc('hour', instant AT TIME ZONE zone) AS local_hour,
        (instant AT TIME ZONE zone) - (instant AT TIME ZONE 'UTC') AS utc_offset
    FROM quarters
)
SELECT local_hour, utc_offset, coalesce(calls, 0) AS calls
FROM local_hours
LEFT JOIN started USING (local_hour, utc_offset);

CREATE OR REPLACE VIEW calls_by_weekday AS
SELECT
    extract(isodow FROM local_hour)::int AS weekday,  -- 1 is Monday
    extract(hour FROM local_hour)::int AS hour,
    sum(calls)::bigint AS calls,
    count(*) AS hours
FROM calls_by_hour
GROUP BY 1, 2;

CREATE OR REPLACE VIEW calls_by_user AS
SELECT
    (started_at AT TIME ZONE zone)::date AS local_day,
    username,
    count(DISTINCT unique_id) AS calls,
    count(*) AS legs,
    sum(seconds)::bigint AS recorded_seconds
FROM legs, report_settings
GROUP BY 1, 2;

CREATE OR REPLACE VIEW calls_by_did AS
SELECT
    (started_at AT TIME ZONE zone)::date AS local_day,
    did,
    count(*) AS calls,
    sum(elapsed_seconds)::bigint AS elapsed_seconds
FROM calls, report_settings
GROUP BY 1, 2;

CREATE OR REPLACE VIEW calls_by_direction AS
SELECT
    (started_at AT TIME ZONE zone)::date AS local_day,
    direction,
    count(*) AS calls,
    sum(elapsed_seconds)::bigint AS elapsed_seconds
FROM calls, report_settings
GROUP BY 1, 2;

CREATE OR REPLACE VIEW call_lengths AS
SELECT from_seconds, below_seconds, count(unique_id) AS calls
FROM (
    VALUES
        (0, 10), (10, 30), (30, 60), (60, 120), (120, 300), (300, 600),
        (600, 1200), (1200, 1800), (1800, 3600), (3600, NULL)
) AS bands (from_seconds, below_seconds)
LEFT JOIN calls
    ON elapsed_seconds >= from_seconds
    AND (elapsed_seconds < below_seconds OR below_seconds IS NULL)
GROUP BY 1, 2;

CREATE OR REPLACE VIEW long_calls AS
SELECT calls.*
FROM calls, report_settings
WHERE elapsed_seconds >= long_call_minutes * 60;

CREATE OR REPLACE VIEW repeat_callers AS
SELECT
    source,
    count(*) AS calls,
    count(*) FILTER (WHERE started_at - previous <= INTERVAL '24 hours') AS calls_within_a_day,
    min(started_at) AS first_call,
    max(started_at) AS last_call
FROM (
    SELECT
        source,
        started_at,
        lag(started_at) OVER (PARTITION BY source ORDER BY started_at) AS previous
    FROM calls
    WHERE direction = 'Inbound' AND source IS NOT NULL
) AS inbound
GROUP BY source
HAVING count(*) > 1;

CREATE OR REPLACE VIEW calls_by_tag AS
SELECT tag, calls.*
FROM (SELECT DISTINCT tag, unique_id FROM legs WHERE tag IS NOT NULL) AS tags
JOIN calls ON calls.unique_id = tags.unique_id;

CREATE OR REPLACE VIEW recordings_near_deletion AS
SELECT legs.*, ended_at + retention_days * INTERVAL '24 hours' AS deletion_at
FROM legs, report_settings
WHERE ended_at + retention_days * INTERVAL '24 hours'
    BETWEEN now() AND now() + warning_days * INTERVAL '24 hours';

CREATE OR REPLACE VIEW states AS
SELECT
    state_id,
    zone,
    read_until,
    coalesce(missing_since, first_read) AS missing_since,
    date_trunc('hour', least(missing_since, first_read)) AS first_hour,
    date_trunc('hour', (now() - settle_minutes * INTERVAL '1 minute') AT TIME ZONE zone)
        - INTERVAL '1 hour' AS last_due
FROM (
    SELECT
        state_id,
        bookmark ->> 'timezone' AS zone,
        (bookmark ->> 'replication_key_value')::timestamptz AS read_until
    FROM bookmarks
) AS parsed
JOIN (
    SELECT state_id, min(from_hour) AS first_read
    FROM hour_ranges
    GROUP BY state_id
) AS ranges USING (state_id)
CROSS JOIN (SELECT missing_since, settle_minutes FROM report_settings) AS settings;

CREATE OR REPLACE VIEW hours AS
WITH local_hours AS (
    SELECT state_id, zone, read_until, generate_series AS local_hour
    FROM states, LATERAL generate_series(first_hour, last_due, INTERVAL '1 hour')
),
ended AS (
    SELECT
        state_id,
        date_trunc('hour', ended_at AT TIME ZONE zone) AS local_hour,
        count(*) AS legs
    FROM legs, states
    GROUP BY 1, 2
)
SELECT
    state_id,
    local_hour,
    EXISTS (
        SELECT 1
        FROM hour_ranges
        WHERE hour_ranges.state_id = local_hours.state_id
            AND local_hour >= from_hour
            AND local_hour < to_hour
            -- Hours that end after replication_key_value do not count as read.
            AND local_hour + INTERVAL '1 hour' <= read_until AT TIME ZONE zone
    ) AS is_read,
    coalesce(legs, 0) AS legs
FROM local_hours
LEFT JOIN ended USING (state_id, local_hour)
-- Leave out skipped hours: clocks show neither their first nor their last quarter.
WHERE (local_hour AT TIME ZONE zone) AT TIME ZONE zone = local_hour
    OR ((local_hour + INTERVAL '45 minutes') AT TIME ZONE zone) AT TIME ZONE zone
        = local_hour + INTERVAL '45 minutes';

CREATE OR REPLACE VIEW hours_without_calls AS
SELECT state_id, local_hour, weeks_read, weeks_with_calls, round(average_legs, 1) AS average_legs
FROM (
    SELECT
        state_id,
        local_hour,
        legs,
        count(*) OVER eight_weeks AS weeks_read,
        count(*) FILTER (WHERE legs > 0) OVER eight_weeks AS weeks_with_calls,
        avg(legs) OVER eight_weeks AS average_legs
    FROM hours
    WHERE is_read
    WINDOW eight_weeks AS (
        PARTITION BY state_id, extract(isodow FROM local_hour), extract(hour FROM local_hour)
        ORDER BY local_hour
        RANGE BETWEEN INTERVAL '56 days' PRECEDING AND INTERVAL '7 days' PRECEDING
    )
) AS weekly
WHERE legs = 0 AND weeks_with_calls >= 5;

CREATE OR REPLACE VIEW freshness AS
SELECT
    state_id,
    read_until,
    coalesce(hours_missing, 0) AS hours_missing,
    coalesce(hours_missing, 0) / (24 * 60.0) AS days_left,  -- at one request a minute
    (SELECT max(ended_at) FROM legs) AS last_leg_ended_at,
    last_success,
    last_failure
FROM states
LEFT JOIN (
    SELECT state_id, count(*) AS hours_missing
    FROM hours
    JOIN states USING (state_id)
    WHERE NOT is_read AND local_hour >= missing_since
    GROUP BY state_id
) AS missing USING (state_id)
LEFT JOIN last_runs USING (state_id);
