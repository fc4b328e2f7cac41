"""A broker in the file system, to try the example without a server; yours is amqp:// or redis://."""

from pathlib import Path

_folder = Path(__file__).resolve().parent / "broker"
_folder.mkdir(exist_ok=True)

broker_url = "filesystem://"
broker_transport_options = {
    "data_folder_in": str(_folder),
    "data_folder_out": str(_folder),
    "control_folder": str(_folder / "control"),
}
task_ignore_result = True
