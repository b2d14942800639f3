"""wiredflow 0.1, as in its own tutorial: it takes every payload, and rewrites the whole file."""

from pathlib import Path
from typing import Any

from shared import Task, done
from wiredflow.main.build import FlowBuilder
from wiredflow.main.store_engines.json_engine.json_db import JSONStorageStage


def main() -> None:
    """Store what comes; it can neither filter nor compute between MQTT and its file."""
    task = Task.from_arguments()
    seen = 0
    save = JSONStorageStage.save

    def counted(self: JSONStorageStage, value: Any, **kwargs: Any) -> None:
        nonlocal seen
        save(self, value, **kwargs)
        seen += 1
        if seen == task.count:
            done()

    JSONStorageStage.save = counted
    flow = FlowBuilder()
    flow.add_pipeline("bench").with_mqtt_connector(
        source="127.0.0.1", port=task.port, topic="bench/#", username="bench", password="bench"
    ).with_storage(
        "json", preprocessing="add_datetime", mapping="extend", folder_to_save=Path(task.path)
    )
    flow.build().launch_flow(execution_seconds=60)


if __name__ == "__main__":
    main()
