package main

import (
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// newLogger returns a log about a device: for people on a terminal, lines of
// JSON elsewhere. Each line carries the device's id.
func newLogger(file *os.File, id uint32) *zap.Logger {
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(config)
	if isTerminal(file) {
		encoder = zapcore.NewConsoleEncoder(config)
	}
	// One write a line, so that several servers can share a file.
	core := zapcore.NewCore(encoder, zapcore.Lock(file), zap.InfoLevel)
	return zap.New(core).With(zap.Uint32("id", id))
}

func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
