-- What a search for accounts finds them by: their address and their name, from the beginning of each word in it to the
-- end, case folded, the first hundred characters. A search reads the rows that begin with a text: as few as it returns,
-- however many accounts there are. `stores/account_words.py` has the same in Python, and says what a word is.
CREATE TABLE account_words (
    word TEXT NOT NULL,
    account INTEGER NOT NULL, -- accounts.number
    PRIMARY KEY (word, account)
) WITHOUT ROWID;

CREATE INDEX account_words_of ON account_words (account);

-- A row for each account whose words are to be found anew: the trigger finds them, and deletes the row.
CREATE TABLE account_words_due (
    account INTEGER PRIMARY KEY,
    text TEXT NOT NULL -- with a space for each character between two words
);

CREATE TRIGGER account_words_found AFTER INSERT ON account_words_due BEGIN
    DELETE FROM account_words WHERE account = new.account;
    INSERT INTO account_words (word, account)
    SELECT word, new.account FROM (
        -- `rest` is what follows a character between two words, and `flat` the same as one line.
        WITH RECURSIVE place(n, rest, flat) AS (
            SELECT 1, new.text, replace(new.text, char(10), ' ')
            UNION ALL
            SELECT n + 1, substr(rest, instr(flat, ' ') + 1), substr(flat, instr(flat, ' ') + 1)
            FROM place WHERE instr(flat, ' ') > 0
        )
        SELECT n, substr(rest, 1, min(100, instr(rest || char(10), char(10)) - 1)) AS word
        FROM place WHERE flat <> '' AND substr(flat, 1, 1) <> ' '
    ) GROUP BY word ORDER BY min(n) LIMIT 32;
    DELETE FROM account_words_due WHERE account = new.account;
END;

CREATE TRIGGER account_words_added AFTER INSERT ON accounts BEGIN
    INSERT INTO account_words_due SELECT new.number,
        replace(replace(replace(replace(replace(replace(replace(replace(
        replace(replace(replace(replace(replace(replace(replace(
        substr(new.folded, 1, 1000), char(9), ' '), '.', ' '), ',', ' '), ':', ' '), ';', ' '), '@', ' '), '+', ' '),
        '-', ' '), '_', ' '), '/', ' '), '&', ' '), '''', ' '), '"', ' '), '(', ' '), ')', ' ');
END;

CREATE TRIGGER account_words_changed AFTER UPDATE OF folded ON accounts WHEN old.folded <> new.folded BEGIN
    INSERT INTO account_words_due SELECT new.number,
        replace(replace(replace(replace(replace(replace(replace(replace(
        replace(replace(replace(replace(replace(replace(replace(
        substr(new.folded, 1, 1000), char(9), ' '), '.', ' '), ',', ' '), ':', ' '), ';', ' '), '@', ' '), '+', ' '),
        '-', ' '), '_', ' '), '/', ' '), '&', ' '), '''', ' '), '"', ' '), '(', ' '), ')', ' ');
END;

CREATE TRIGGER account_words_removed AFTER DELETE ON accounts BEGIN
    DELETE FROM account_words WHERE account = old.number;
END;

-- Accounts that are there already.
INSERT INTO account_words_due SELECT number,
    replace(replace(replace(replace(replace(replace(replace(replace(
    replace(replace(replace(replace(replace(replace(replace(
    substr(folded, 1, 1000), char(9), ' '), '.', ' '), ',', ' '), ':', ' '), ';', ' '), '@', ' '), '+', ' '),
    '-', ' '), '_', ' '), '/', ' '), '&', ' '), '''', ' '), '"', ' '), '(', ' '), ')', ' ') FROM accounts;

-- Lists begin with the newest account.
CREATE INDEX accounts_by_age ON accounts (created_at, subject);
CREATE INDEX accounts_disabled ON accounts (created_at, subject) WHERE NOT active;
CREATE INDEX accounts_unverified ON accounts (created_at, subject)
WHERE email_verified_at IS NULL AND email IS NOT NULL;
