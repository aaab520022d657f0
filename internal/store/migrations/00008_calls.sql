-- +goose Up
-- How many calls a run was expected to make, as JSON; '' = not known.
ALTER TABLE runs ADD COLUMN price TEXT NOT NULL DEFAULT '';

-- API calls made to an organization or email account within five minutes, by caller.
CREATE TABLE calls (
    connection TEXT NOT NULL,
    slot       BIGINT NOT NULL,
    caller     TEXT NOT NULL,
    calls      BIGINT NOT NULL,
    polls      BIGINT NOT NULL,
    PRIMARY KEY (connection, slot, caller)
);
CREATE INDEX calls_slot ON calls (slot);
