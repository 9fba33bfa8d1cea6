package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
)

// event is an event as `go doc test2json` describes it.
type event struct {
	Action     string
	Package    string
	ImportPath string // in place of Package, for the events of a build
	Test       string
	Output     string
	Elapsed    float64
	Key, Value string // for an attribute
}

// readEvents passes each line of a stream to add as an event. A line that is not an event
// becomes output that belongs to no test.
func readEvents(in io.Reader, add func(event)) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if json.Unmarshal([]byte(line), &e) == nil {
			add(e)
		} else if line != "" {
			add(event{Action: "output", Output: line})
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
