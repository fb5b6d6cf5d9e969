package main

import (
	"fmt"
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/zoneforge/zoneforge/config"
)

// newLogger writes to out: lines for people on a terminal, JSON otherwise, unless the settings say which.
func newLogger(out io.Writer, c config.Log) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		return nil, fmt.Errorf("log-level: %w", err)
	}
	console := c.LogFormat == "console"
	if f, ok := out.(*os.File); ok && c.LogFormat == "auto" {
		console = term.IsTerminal(int(f.Fd()))
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if console {
		encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(out)), level), zap.ErrorOutput(zapcore.Lock(zapcore.AddSync(out)))), nil
}
