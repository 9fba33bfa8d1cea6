package table

import (
	"bytes"
	"fmt"
)

// Options say how to read a table.
type Options struct {
	// KeysInText allows keys in hexadecimal digits. Without it Parse refuses
	// them with ErrKeyInText, because a table on a command line can be read by
	// all users.
	KeysInText bool
	// DeviceMapperMajor is the major number of device mapper on this host, so
	// that MAJOR:MINOR finds tables of the stack; 0 if it is not known.
	DeviceMapperMajor uint32
}

// Parse reads dmsetup's lines or its concise format: the latter if the first
// word contains a comma. The caller owns the keys in the stack, and closes it.
// An error is a *StackError.
func Parse(text []byte, opts Options) (*Stack, error) {
	if len(text) > MaxText {
		return nil, &StackError{Err: fmt.Errorf("text longer than %d bytes: %w", MaxText, ErrLimit)}
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, &StackError{Err: fmt.Errorf("null character: %w", ErrSyntax)}
	}
	p := parser{opts: opts, stack: &Stack{}}
	var err error
	if isConcise(text) {
		err = p.concise(text)
	} else {
		p.stack.Tables = []Table{{Minor: NoMinor}}
		err = p.parseLines(&p.stack.Tables[0], text)
	}
	if err == nil {
		err = p.stack.check(opts.DeviceMapperMajor)
	}
	if err != nil {
		p.stack.Close()
		return nil, err
	}
	p.stack.nameKeys()
	return p.stack, nil
}

// isConcise reports whether the first word outside of comments contains a comma.
func isConcise(text []byte) bool {
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		if word, _ := cutWord(line); len(word) > 0 && word[0] != '#' {
			return bytes.IndexByte(word, ',') >= 0
		}
	}
	return false
}

// parser is the state of Parse.
type parser struct {
	opts  Options
	stack *Stack
	lines int      // in all tables
	split splitter // of text in the concise format
}
