-- The consent ledger, what it adds up to, and who was erased.

-- +goose Up

-- content and person are in the form of the ledger (package consent); an empty person
-- was erased. hash chains the rows, so they need no checksum of their own.
CREATE TABLE consent (
    seq     BIGINT PRIMARY KEY,
    id      BYTEA NOT NULL UNIQUE,
    address BYTEA NOT NULL,
    content BYTEA NOT NULL,
    person  BYTEA NOT NULL,
    hash    BYTEA NOT NULL
);
CREATE INDEX consent_address ON consent (address, seq);

-- The end of the ledger: a row that is cut off there is missed here. Who appends
-- holds this row.
CREATE TABLE consent_head (
    name TEXT PRIMARY KEY,
    seq  BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    crc  BIGINT NOT NULL
);

CREATE TABLE restrictions (
    id      BYTEA PRIMARY KEY,
    account TEXT NOT NULL,
    address BYTEA NOT NULL,
    pending BOOLEAN NOT NULL,
    asked   BOOLEAN NOT NULL,
    stamp   BIGINT NOT NULL,
    doc     TEXT NOT NULL,
    crc     BIGINT NOT NULL
);
CREATE INDEX restrictions_address ON restrictions (address, account);
CREATE INDEX restrictions_account ON restrictions (account, id);
CREATE INDEX restrictions_stamp ON restrictions (account, stamp);
CREATE INDEX restrictions_pending ON restrictions (account, id) WHERE pending;

-- Addresses whose people were erased: what is said of them later is kept without
-- their values, for as long as a restriction of the address stands.
CREATE TABLE erasures (
    address BYTEA PRIMARY KEY,
    at      BIGINT NOT NULL
);
