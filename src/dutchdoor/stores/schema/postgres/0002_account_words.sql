-- additive: yes
--
-- What a search for accounts finds them by: their address and their name, from the beginning of each word in it to the
-- end, case folded, the first hundred characters. A search reads the rows that begin with a text: as few as it returns,
-- however many accounts there are. `stores/account_words.py` has the same in Python, and says what a word is.
CREATE TABLE dutchdoor.account_words (
    word text COLLATE "C" NOT NULL,
    account bigint NOT NULL, -- accounts.number
    PRIMARY KEY (word, account)
);

CREATE INDEX account_words_of ON dutchdoor.account_words (account);

-- Of the first thousand characters: longer than an address and a name may be.
CREATE FUNCTION dutchdoor.words_1(folded text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
    WITH lines AS (
        SELECT number, string_to_array(line, ' ') AS words
        FROM string_to_table(
            translate(left(folded, 1000), E'\t.,:;@+-_/&''"()', repeat(' ', 15)), E'\n'
        ) WITH ORDINALITY AS every(line, number)
    )
    SELECT left(array_to_string(words[n:], ' '), 100) AS word FROM lines, generate_subscripts(words, 1) n
    WHERE words[n] <> '' GROUP BY word ORDER BY min(number * 1000 + n) LIMIT 32
$$;

-- The triggers write for programs of the version before, too.
CREATE FUNCTION dutchdoor.keep_words_1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE dutchdoor.account_words;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM dutchdoor.account_words w WHERE w.account = OLD.number;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO dutchdoor.account_words (word, account) SELECT word, NEW.number FROM dutchdoor.words_1(NEW.folded) word;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER keep_words AFTER INSERT OR DELETE ON dutchdoor.accounts
FOR EACH ROW EXECUTE FUNCTION dutchdoor.keep_words_1();
CREATE TRIGGER keep_changed_words AFTER UPDATE OF folded ON dutchdoor.accounts
FOR EACH ROW WHEN (OLD.folded IS DISTINCT FROM NEW.folded) EXECUTE FUNCTION dutchdoor.keep_words_1();
CREATE TRIGGER keep_no_words AFTER TRUNCATE ON dutchdoor.accounts
FOR EACH STATEMENT EXECUTE FUNCTION dutchdoor.keep_words_1();

INSERT INTO dutchdoor.account_words (word, account)
SELECT word, a.number FROM dutchdoor.accounts a, dutchdoor.words_1(a.folded) word;

-- Lists begin with the newest account.
CREATE INDEX accounts_by_age ON dutchdoor.accounts (created_at, subject);
CREATE INDEX accounts_disabled ON dutchdoor.accounts (created_at, subject) WHERE NOT active;
CREATE INDEX accounts_unverified ON dutchdoor.accounts (created_at, subject)
WHERE email_verified_at IS NULL AND email IS NOT NULL;
