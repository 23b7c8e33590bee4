from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

import conf.own
from fl.names import NAME

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    return Message(RecordDict({"answer": ConfigRecord({"name": f"{NAME}, {conf.own.NAME}"})}), reply_to=message)
