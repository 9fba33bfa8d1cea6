package daemon

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
)

// An answer is one line, from which a device and an error can be told apart.
func TestAnswer(t *testing.T) {
	for _, a := range []answer{{Device: &client.Device{ID: 3}}, {Error: "no\nroom", Hint: "make some"}} {
		line, err := json.Marshal(a)
		if err != nil || bytes.Contains(line, []byte("\n")) {
			t.Fatalf("%s, %v", line, err)
		}
		var got answer
		if err := json.Unmarshal(line, &got); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%s becomes %+v, %v", line, got, err)
		}
	}
}
