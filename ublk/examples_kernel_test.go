package ublk_test

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// Each of the package's examples prints what it should.
func TestKernelExamples(t *testing.T) {
	for name, example := range map[string]struct {
		run  func()
		want string
	}{
		"RAM disk":     {Example, "write: <nil>\nserve: <nil>\nthe disk has the bytes: true\n"},
		"null":         {ExampleServe, "write: <nil>\nserve: <nil>\n"},
		"ReaderAt":     {ExampleNewDisk, "65536 bytes, error <nil>\nthe same: true\nserve: <nil>\n"},
		"asynchronous": {ExampleRequest_Async, "1048576 bytes, error <nil>\nblock 3: 4096 bytes of 3\nserve: <nil>\n"},
		"stripe": {
			ExampleRequest_ForwardAndComplete,
			"write: <nil>\nserve: <nil>\nfile 0 error <nil> bytes 131072\nfile 1 error <nil> bytes 131072\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ublktest.Kernel(t)
			if got := ublktest.Printed(t, example.run); got != example.want {
				t.Errorf("the example prints %q, want %q", got, example.want)
			}
		})
	}
}
