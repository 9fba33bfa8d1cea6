package main

import (
	"context"
	"os"
	"path"
	"time"

	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logger writes lines of JSON, as ublk-loop serve does.
type logger struct{ core zapcore.Core }

func newLogger(file *os.File) *logger {
	return &logger{zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey: "ts", LevelKey: "level", MessageKey: "msg", LineEnding: zapcore.DefaultLineEnding,
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
	}), zapcore.Lock(file), zapcore.InfoLevel)}
}

func (l *logger) info(message string) { l.write(zapcore.InfoLevel, message, nil) }

// write drops its own error: there is nowhere to tell of it.
func (l *logger) write(level zapcore.Level, message string, fields []zapcore.Field) {
	_ = l.core.Write(zapcore.Entry{Level: level, Time: time.Now(), Message: message}, fields)
}

// failures answers a request, and logs why it has failed. What containerd asks
// for to see whether it is there, and what it tries again, is no failure.
func (l *logger) failures(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	reply, err := handler(ctx, req)
	switch status.Code(err) {
	case codes.OK, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Canceled:
	default:
		l.write(zapcore.ErrorLevel, path.Base(info.FullMethod), []zapcore.Field{
			{Key: "error", Type: zapcore.StringType, String: err.Error()},
		})
	}
	return reply, err
}
