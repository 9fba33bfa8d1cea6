package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
)

// event is what `go doc test2json` describes.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build, in place of Package
	Test       string
	Output     string
	Elapsed    float64
	Key, Value string // of an attribute
}

// readEvents hands on each line of a stream as an event. A line that is none is
// output of no test.
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
