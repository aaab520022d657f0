-- +goose Up
-- Records that a side did not take and that are tried again, at next in microseconds.
CREATE TABLE retries (
    account    TEXT NOT NULL REFERENCES email_accounts (id),
    table_name TEXT NOT NULL,
    record     TEXT NOT NULL,
    finding    TEXT NOT NULL,
    attempts   BIGINT NOT NULL,
    next       BIGINT NOT NULL,
    PRIMARY KEY (account, table_name, record)
);
CREATE INDEX retries_next ON retries (next);
