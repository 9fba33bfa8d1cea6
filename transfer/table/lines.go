package table

import (
	"bytes"
	"fmt"
)

// parsers have a function for each target that is taken.
var parsers = map[string]func(*words) (Target, error){
	"linear":   parseLinear,
	"striped":  parseStriped,
	"zero":     parseZero,
	"error":    parseError,
	"crypt":    parseCrypt,
	"snapshot": parseSnapshot,
	"verity":   parseVerity,
}

// others are targets of device mapper that are refused by name.
var others = map[string]bool{
	"snapshot-merge": true, "snapshot-origin": true,
	"cache": true, "clone": true, "delay": true, "dust": true, "ebs": true, "era": true, "flakey": true,
	"integrity": true, "log-writes": true, "mirror": true, "multipath": true, "pcache": true, "raid": true,
	"switch": true, "thin": true, "thin-pool": true, "unstriped": true, "vdo": true, "writecache": true, "zoned": true,
}

// parseLines reads the lines of one table.
func (p *parser) parseLines(t *Table, text []byte) error {
	number := 0
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		number++
		line = bytes.Trim(line, blank)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if p.lines++; p.lines > MaxLines {
			return &StackError{Table: t.Name, Line: number, Err: fmt.Errorf("more than %d lines: %w", MaxLines, ErrLimit)}
		}
		l, name, err := p.parseLine(line)
		if err == nil {
			// Before any check, so that Close finds each key.
			t.Lines = append(t.Lines, l)
			err = t.checkLast()
		}
		if err != nil {
			return inLine(t.Name, number, name, err)
		}
	}
	if len(t.Lines) == 0 {
		return &StackError{Table: t.Name, Err: fmt.Errorf("no line: %w", ErrSyntax)}
	}
	return nil
}

// parseLine reads START LENGTH TARGET ARGUMENT... and returns the name of the
// target also with an error.
func (p *parser) parseLine(line []byte) (l Line, name string, err error) {
	w := words{opts: &p.opts}
	for range 3 {
		var word []byte
		if word, line = cutWord(line); len(word) == 0 {
			return l, "", fmt.Errorf("not START LENGTH TARGET: %w", ErrSyntax)
		}
		w.rest = append(w.rest, word)
	}
	if err := checkWord(w.rest[2]); err != nil {
		return l, "", fmt.Errorf("target: %w", err)
	}
	if err := l.parseRange(&w); err != nil {
		return l, "", err
	}
	name = w.next()
	parse := parsers[name]
	switch {
	case others[name]:
		return l, name, fmt.Errorf("target of device mapper: %w", ErrUnsupported)
	case parse == nil:
		return l, name, fmt.Errorf("unknown target: %w", ErrInvalid)
	}
	if i := bytes.IndexByte(line, '#'); i >= 0 {
		line = line[:i]
	}
	for word, rest := cutWord(line); len(word) > 0; word, rest = cutWord(rest) {
		if err := checkWord(word); err != nil {
			return l, name, fmt.Errorf("argument %d: %w", len(w.rest)+1, err)
		}
		w.rest = append(w.rest, word)
	}
	l.Target, err = parse(&w)
	return l, name, err
}

// parseRange reads START LENGTH.
func (l *Line) parseRange(w *words) (err error) {
	for _, word := range w.rest[:2] {
		if !isDigits(string(word)) {
			return fmt.Errorf("not START LENGTH TARGET: %w", ErrSyntax)
		}
	}
	if l.Start, err = w.number("start", 64); err != nil {
		return err
	}
	l.Length, err = w.number("length", 64)
	return err
}

// cutWord returns the first word of a line and what follows.
func cutWord(line []byte) (word, rest []byte) {
	line = bytes.TrimLeft(line, blank)
	if i := bytes.IndexAny(line, blank); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

// checkLast checks the last line against the one before it
// (dm_table_add_target in drivers/md/dm-table.c).
func (t *Table) checkLast() error {
	end := uint64(0)
	if n := len(t.Lines); n > 1 {
		end = t.Lines[n-2].Start + t.Lines[n-2].Length
	}
	l := &t.Lines[len(t.Lines)-1]
	switch {
	case l.Length == 0:
		return fmt.Errorf("length 0: %w", ErrInvalid)
	case l.Length > MaxSectors || l.Start > MaxSectors-l.Length:
		return fmt.Errorf("%d sectors from %d: device too large: %w", l.Length, l.Start, ErrInvalid)
	case l.Start > end:
		return fmt.Errorf("start %d: gap, because the line before ends at %d: %w", l.Start, end, ErrInvalid)
	case l.Start < end:
		return fmt.Errorf("start %d: overlap, because the line before ends at %d: %w", l.Start, end, ErrInvalid)
	}
	for _, a := range l.Target.Areas(l.Length) {
		if a.Start > MaxSectors || a.Length > MaxSectors-a.Start {
			return badArgument("start", fmt.Sprint(a.Start), fmt.Errorf("beyond the end of any device: %w", ErrInvalid))
		}
	}
	if err := l.checkStart(); err != nil {
		return err
	}
	return l.Target.check(l.Length)
}
