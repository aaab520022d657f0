-- +goose Up
ALTER TABLE runs ADD COLUMN undoes TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN undo_record TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN undo_field TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_undoes ON runs (undoes) WHERE undoes <> '';

-- Whom a piece of a log may be about (1 journal, 2 links, 3 members): a small filter
-- each, so that what is kept of one person is found without reading everybody's.
CREATE TABLE filters (
    log    BIGINT NOT NULL,
    blob   BIGINT NOT NULL,
    filter BYTEA NOT NULL,
    PRIMARY KEY (log, blob)
);
CREATE INDEX journal_account ON journal (account, id) WHERE NOT preview;

CREATE INDEX findings_record ON findings (account, record);
CREATE INDEX findings_contact ON findings (account, contact);
CREATE INDEX conflicts_record ON conflicts (account, record);
