-- +goose Up
ALTER TABLE runs ADD COLUMN undoes TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN undo_record TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN undo_field TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_undoes ON runs (undoes) WHERE undoes <> '';

-- Which batches of the journal may be about a record or a contact: a small filter a
-- batch, so that one person's history is found without reading everybody's.
CREATE TABLE journal_subjects (
    batch   BIGINT PRIMARY KEY,
    account TEXT NOT NULL,
    filter  BYTEA NOT NULL
);
CREATE INDEX journal_account ON journal (account, id) WHERE NOT preview;

CREATE INDEX findings_record ON findings (account, record);
CREATE INDEX findings_contact ON findings (account, contact);
CREATE INDEX conflicts_record ON conflicts (account, record);
