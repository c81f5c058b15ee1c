"""Reads run directories and writes tables, figures and pages; imports no torch."""

from chibit.reporting.report import FORMATS, ReportPaths, build_report, render_console_table

__all__ = ["FORMATS", "ReportPaths", "build_report", "render_console_table"]
