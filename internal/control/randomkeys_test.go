package control

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/loop"
)

// The server makes random keys for all lines with crypt, others for each device, and gives the
// device no other on_crash than fail.
func TestRandomKeys(t *testing.T) {
	s := newStand(t)
	crypt := fmt.Sprintf("0 8 crypt aes-xts-plain64 :64:user:x 0 %s 0", file(t, strings.Repeat("c", 4096)))
	two := crypt + `\n8 8 crypt aes-xts-plain64 :32:user:y 0 ` + file(t, strings.Repeat("d", 4096)) + " 0"
	var keys []string
	for _, text := range []string{crypt, crypt, two} {
		if status, answer := s.send(t, post(`{"table":"`+text+`","random_keys":true}`)); status != 201 {
			t.Fatalf("%d %s", status, answer)
		}
		keys = append(keys, s.devices.key)
	}
	if len(keys[0]) != 64 || len(keys[2]) != 96 || keys[0] == keys[1] || bytes.Count([]byte(keys[2]), []byte{0}) > 20 {
		t.Errorf("keys %x", keys)
	}
	if c := s.devices.configs[0].OnCrash; c != "" && c != loop.CrashFail {
		t.Errorf("on_crash is %s", c)
	}
	for body, want := range map[string]string{
		`{"file":"/x","random_keys":true}`:                                              "without a table",
		`{"table":"0 8 zero","random_keys":true}`:                                       "without crypt",
		`{"table":"` + crypt + `","random_keys":true,"config":{"on_crash":"reissue"}}`:  "on_crash reissue",
		`{"table":"` + crypt + `","random_keys":true,"config":{"on_crash":"requeue"}}`:  "on_crash requeue",
		`{"table":"0 8 crypt aes-xts-plain64 :64:user:x 0 /none 0","random_keys":true}`: "/none",
	} {
		if status, answer := s.send(t, post(body)); status != 400 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s, want %q", body, status, answer, want)
		}
	}
}
