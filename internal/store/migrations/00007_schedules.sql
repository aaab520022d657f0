-- +goose Up
CREATE TABLE schedules (
    account TEXT NOT NULL REFERENCES email_accounts (id),
    type    TEXT NOT NULL,
    next    BIGINT NOT NULL,
    doc     TEXT NOT NULL,
    crc     BIGINT NOT NULL,
    PRIMARY KEY (account, type)
);
ALTER TABLE runs ADD COLUMN scheduled BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE runs ADD COLUMN again TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_of_type ON runs (account, type, created);

-- One run at a time works on who is who and who is where in an account.
UPDATE runs SET status = 'queued' WHERE status = 'in_process' AND type IN ('address-books-in', 'marketing-lists', 'undo') AND EXISTS
  (SELECT 1 FROM runs o WHERE o.account = runs.account AND o.id < runs.id AND o.status = 'in_process' AND o.type IN ('address-books-in', 'marketing-lists', 'undo'));
CREATE UNIQUE INDEX runs_at_lists ON runs (account) WHERE status = 'in_process' AND type IN ('address-books-in', 'marketing-lists', 'undo');

-- Since when somebody has to be told, in microseconds; 0 = nobody has.
ALTER TABLE restrictions ADD COLUMN pending_since BIGINT NOT NULL DEFAULT 0;

-- A run that a schedule started and that found nothing to do; the audit keeps few of them.
ALTER TABLE runs ADD COLUMN quiet BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX runs_quiet ON runs (created) WHERE quiet;
