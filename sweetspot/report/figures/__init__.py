"""What a study has found, as figures: values first (`spec`), then drawn by matplotlib or by plotly."""
