ALTER TABLE todos ADD COLUMN note TEXT CHECK (length(note) <= 2000);

-- What is open is what is asked for most.
CREATE INDEX open_todos ON todos (id) WHERE done = 0;
