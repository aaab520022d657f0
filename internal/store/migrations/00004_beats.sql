-- +goose Up
-- Signs of life of the processes that share the database.
CREATE TABLE beats (
    process TEXT PRIMARY KEY,
    count   BIGINT NOT NULL
);
