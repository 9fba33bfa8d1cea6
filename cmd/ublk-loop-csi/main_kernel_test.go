package main

import (
	"os"
	"testing"
)

// asDriver makes the test binary run as the driver, so that tests need no second program.
const asDriver = "UBLK_LOOP_TEST_DRIVER"

func TestMain(m *testing.M) {
	if os.Getenv(asDriver) != "" {
		_ = os.Unsetenv(asDriver)
		main()
		return
	}
	os.Exit(m.Run())
}
