-- What people chose for each marketing preference, on either side.

-- +goose Up
CREATE TABLE choices (
    id      BYTEA PRIMARY KEY,
    account TEXT NOT NULL,
    address BYTEA NOT NULL,
    shown   BYTEA NOT NULL, -- the row of the CRM; empty = none
    pending BOOLEAN NOT NULL,
    doc     TEXT NOT NULL,
    crc     BIGINT NOT NULL
);
CREATE INDEX choices_address ON choices (address, account);
CREATE INDEX choices_shown ON choices (shown) WHERE length(shown) > 0;
CREATE INDEX choices_account ON choices (account);
CREATE INDEX choices_pending ON choices (account, id) WHERE pending;
